"""The graph of a functional model: its calls, in an order in which every call follows what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Call:
    """One call of a layer (or operation) inside a model."""

    operation: Any
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]


def calls_of(model: keras.Model) -> tuple[Call, ...]:
    """The calls that lead from the inputs of a functional model to its outputs, inputs first."""
    calls: dict[int, Call] = {}
    waiting: list[tuple[Any, bool]] = [(_node(tensor), False) for tensor in reversed(model.outputs)]
    ends = {id(tensor) for tensor in model.inputs}
    while waiting:
        node, needs_met = waiting.pop()
        if id(node) in calls:
            continue
        inputs = tuple(node.input_tensors)
        if needs_met or all(id(tensor) in ends for tensor in node.output_tensors):
            calls[id(node)] = Call(node.operation, inputs, tuple(node.output_tensors))
            continue
        waiting.append((node, True))
        waiting += [(_node(tensor), False) for tensor in reversed(inputs)]
    return tuple(calls.values())


def layers_with_weights(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """The layers that hold weights, by path, in the model's order; nested models are opened."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if isinstance(layer, keras.Model):
            yield from layers_with_weights(layer, f"{path}/")
        elif layer.weights:
            yield path, layer


def is_functional(operation: Any) -> bool:
    """Whether an operation is a model whose calls can be replayed one by one."""
    return isinstance(operation, keras.Model) and type(operation).call.__qualname__ == "Functional.call"


def replay(model: keras.Model, inputs: Any, call: Callable[..., Any]) -> Any:
    """Go through the calls of a functional model again, on other inputs.

    `call(operation, *args, **kwargs)` makes each of them; a model inside is one operation. Inputs and outputs
    are in the structures that the model takes and gives.
    """
    # Private: what keras.models.clone_model itself rests on. Keras 3.12 to 3.15.1.
    return model._run_through_graph(inputs, operation_fn=lambda operation: operation, call_fn=call)


def _node(tensor: keras.KerasTensor) -> Any:
    # Private: layer.input and layer.output, the public way, raise for a layer that was called twice, and
    # name the inner tensors of a nested model. Tried on Keras 3.15.1.
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]
