"""Which variables of a SavedModel its outputs depend on: the others must not be trained, nor decayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tlkit.backbones.saved_model_endpoint import Endpoint, name_outputs

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def needed_variables(endpoint: Endpoint, names: Sequence[str]) -> frozenset[int]:
    """The variables, by id, that these outputs depend on in any of the calls that were saved, as in training.

    Functions that are called inside are followed; what is in a loop or a branch is taken to need all of its
    inputs. None where nothing of the SavedModel can be trained.
    """
    if not endpoint.trainable:
        return frozenset()
    return frozenset(
        found for graph in endpoint.graphs for found in _needed(graph, names, endpoint.variables)
    )


def _needed(function: Any, names: Sequence[str], variables: Iterable[tf.Variable]) -> set[int]:
    places = _places(function.structured_outputs)
    definition = function.function_def
    library = {each.signature.name: each for each in function.graph.as_graph_def().library.function}
    arguments = _Arguments(library)
    used = {place for name in names if name in places for place in arguments.of(definition, places[name])}
    captured = function.captured_inputs
    first = len(function.inputs) - len(captured)
    ids = {id(_handle(variable)): id(variable) for variable in variables}
    return {
        ids[id(outside)]
        for place, outside in enumerate(captured, first)
        if place in used and id(outside) in ids
    }


def _places(outputs: Any) -> dict[str, int]:
    """At which of a function's flat outputs each named one starts: None is none of them, a ragged or a sparse
    tensor is several."""
    sizes = [
        0 if each is None else len(tf.nest.flatten(each, expand_composites=True))
        for each in tf.nest.flatten(outputs)
    ]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return name_outputs(tf.nest.pack_sequence_as(outputs, starts))


class _Arguments:
    """Which arguments of a function each of its outputs depends on."""

    def __init__(self, library: Mapping[str, Any]) -> None:
        self.library = library
        self.known: dict[tuple[str, int], frozenset[int]] = {}

    def of(self, definition: Any, output: int) -> frozenset[int]:
        """The positions of the arguments that the output at this position depends on."""
        key = (definition.signature.name, output)
        if key not in self.known:
            self.known[key] = frozenset()  # while it is looked for: of a function that calls itself
            self.known[key] = self._found(definition, output)
        return self.known[key]

    def _found(self, definition: Any, output: int) -> frozenset[int]:
        positions = {each.name: place for place, each in enumerate(definition.signature.input_arg)}
        nodes = {node.name: node for node in definition.node_def}
        waiting = [definition.ret[definition.signature.output_arg[output].name]]
        seen, found = set(waiting), set()
        while waiting:
            tensor = waiting.pop()
            name, _, place = tensor.partition(":")
            if name in positions:
                found.add(positions[name])
                continue
            new = [each for each in self._inputs(nodes[name], place) if each not in seen]
            seen |= set(new)
            waiting += new
        return frozenset(found)

    def _inputs(self, node: Any, place: str) -> list[str]:
        """The tensors that an output of a node depends on; `place` is "output:2" of a call."""
        inputs = [each for each in node.input if not each.startswith("^")]  # which only says what comes first
        called = self.library.get(node.attr["f"].func.name) if node.op in _CALLS else None
        if called is None:
            return inputs
        return [inputs[argument] for argument in self.of(called, int(place.rpartition(":")[2] or 0))]


def _handle(variable: tf.Variable) -> Any:
    """What a function captures of a variable: of a mirrored one, the variable."""
    return variable if hasattr(variable, "values") else variable.handle
