"""Divide a model at the boundary between what a stage leaves as it is and what it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tlkit.backbones import is_batch_norm
from tlkit.backbones.graph import is_functional, replay
from tlkit.freezing import LayerGroup

FEATURES = "features"


@dataclass(frozen=True)
class Parts:
    """One model as two, which share its layers: `upper(lower(x))` is what the whole gives.

    `lower` takes the model's inputs and gives the boundary: a dict of tensors, of which `features` (and
    `features_1` …) were computed with weights, and the others are inputs that are needed above, by name.
    `lower` holds nothing that a stage changes; `upper` takes the boundary.
    """

    lower: keras.Model
    upper: keras.Model


def divide(model: keras.Model, groups: Sequence[LayerGroup], keep: Sequence[str] = ()) -> Parts | None:
    """Divide a model as high as its frozen layers allow; None where no layer with weights is frozen.

    To call once `apply_freeze` has said what is frozen. Below the boundary is whatever depends on nothing
    that trains and is no chance: of the head, poolings, too. Dropout and its like inside the backbone, below
    its first layer that trains, are below the boundary, and off: a frozen layer gives what it gave before.

    Args:
        model: The backbone, a model inside it, with its head.
        groups: The backbone's layer groups.
        keep: Inputs of the model that the boundary has in any case.
    """
    backbone_layers = {id(layer) for group in groups for layer in group.layers}
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name), model.input
    )
    given = {tensor.name: tensor for tensor in keras.tree.flatten(inputs)}
    # What is below the boundary, and of what no layer with weights had a part in, the inputs that it is of.
    fixed = {id(tensor): tensor for tensor in given.values()}
    origins = {id(tensor): {name} for name, tensor in given.items()}
    boundary: dict[int, keras.KerasTensor] = {}

    def make_call(inside: bool) -> Any:
        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if is_functional(operation):
                holds = any(id(layer) in backbone_layers for layer in operation._flatten_layers())
                return replay(operation, args[0], make_call(inside or holds))
            needed = [tensor for tensor in keras.tree.flatten((args, kwargs)) if _is_symbolic(tensor)]
            outputs = operation(*args, **kwargs)
            if not all(id(tensor) in fixed for tensor in needed) or not _is_constant(operation, inside):
                boundary.update({id(tensor): tensor for tensor in needed if id(tensor) in fixed})
                return outputs
            made = {id(tensor): tensor for tensor in keras.tree.flatten(outputs)}
            fixed.update(made)
            if not getattr(operation, "weights", ()) and all(id(tensor) in origins for tensor in needed):
                origins.update(dict.fromkeys(made, set().union(*(origins[id(x)] for x in needed))))
            return outputs

        return call

    outputs = replay(model, inputs, make_call(inside=False))
    computed = [tensor for key, tensor in boundary.items() if key not in origins]
    if not computed:
        return None
    passed = set().union(*(origins[key] for key in boundary if key in origins), set(keep) & set(given))
    named = {f"{FEATURES}_{place}" if place else FEATURES: tensor for place, tensor in enumerate(computed)}
    named |= {name: given[name] for name in sorted(passed)}
    lower = keras.Model(inputs, named, name=f"{model.name}_below")
    return Parts(lower, _above(named, outputs, f"{model.name}_above"))


def _above(boundary: dict[str, Any], outputs: Any, name: str) -> keras.Model:
    """From the boundary to the outputs. Keras wants the inputs' names to be those of the dict."""
    inputs = {key: keras.Input(x.shape[1:], dtype=x.dtype, name=key) for key, x in boundary.items()}
    cut = keras.Model(list(boundary.values()), outputs)
    again = replay(cut, list(inputs.values()), lambda operation, *args, **kwargs: operation(*args, **kwargs))
    return keras.Model(inputs, again, name=name)


def _named(boundary: list[Any], inputs: Any, keep: Sequence[str]) -> dict[str, Any]:
    given = inputs if isinstance(inputs, dict) else {}
    names = {id(tensor): name for name, tensor in given.items()}
    computed = [
        tensor for tensor in boundary if id(tensor) not in {id(x) for x in keras.tree.flatten(inputs)}
    ]
    named = {f"{FEATURES}_{place}" if place else FEATURES: tensor for place, tensor in enumerate(computed)}
    named |= {names[id(tensor)]: tensor for tensor in boundary if id(tensor) in names}
    return named | {name: given[name] for name in keep if name in given}


def _is_constant(operation: Any, inside: bool) -> bool:
    """Whether an operation gives the same for the same input through a whole stage.

    `inside`: in the backbone, where chance is switched off. What somebody else wrote is not looked into.
    """
    if not isinstance(operation, keras.layers.Layer):
        return True
    layers = list(operation._flatten_layers())
    if any(layer.trainable and is_batch_norm(layer) for layer in layers) or operation.trainable_weights:
        return False
    if inside:
        return True
    known = type(operation).__module__.partition(".")[0] in ("keras", "tlkit")
    chance = any(getattr(layer, "seed_generator", None) is not None for layer in layers)
    return known and not chance and not operation.weights


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)
