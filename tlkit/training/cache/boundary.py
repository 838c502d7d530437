"""Divide a model at the boundary between what a stage leaves as it is and what it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import keras

from tlkit.backbones import is_batch_norm
from tlkit.backbones.graph import is_functional, replay
from tlkit.freezing import LayerGroup

FEATURES = "features"
Place = tuple[int, int]  # the number of a call in the order of the graph, and which of its outputs


@dataclass(frozen=True)
class Parts:
    """One model as two, which share its layers: `upper(lower(x))` is what the whole gives.

    `lower` takes the model's inputs and gives the boundary: a dict of tensors, of which `features` (and
    `features_1` …) were computed with weights, and the others are inputs that are needed above, by name.
    `lower` holds nothing that a stage changes; `upper` takes the boundary. `between` leads from a boundary
    below to this one, where there was one. `places` are those of the features in the model's graph.
    """

    lower: keras.Model
    upper: keras.Model
    places: Mapping[str, Place]
    between: keras.Model | None = None


def divide(
    model: keras.Model,
    groups: Sequence[LayerGroup],
    keep: Sequence[str] = (),
    below: Parts | None = None,
) -> Parts | None:
    """Divide a model as high as its frozen layers allow; None where no layer with weights is frozen.

    To call once `apply_freeze` has said what is frozen. Below the boundary is whatever depends on nothing
    that trains and is no chance: of the head, poolings, too. Dropout and its like inside the backbone, below
    its first layer that trains, are below the boundary, and off: a frozen layer gives what it gave before.

    Args:
        model: The backbone, a model inside it, with its head.
        groups: The backbone's layer groups.
        keep: Inputs of the model that the boundary has in any case.
        below: An earlier boundary of the model, whose features may be there. It is left alone where anything
            below it trains now.
    """
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name), model.input
    )
    given = {tensor.name: tensor for tensor in keras.tree.flatten(inputs)}
    walk = _Walk(given, {id(layer) for group in groups for layer in group.layers}, below)
    outputs = replay(model, inputs, walk.call)
    computed = [tensor for key, tensor in walk.boundary.items() if key not in walk.origins]
    if not computed:
        return None
    named = {f"{FEATURES}_{place}" if place else FEATURES: tensor for place, tensor in enumerate(computed)}
    place_of = {id(tensor): place for place, tensor in walk.made.items()}
    places = {name: place_of[id(tensor)] for name, tensor in named.items()}
    passed = [walk.origins[key] for key in walk.boundary if key in walk.origins]
    named |= {name: given[name] for name in sorted(set().union(*passed, set(keep) & set(given)))}
    between = None
    if below is not None and walk.leads_to(named):
        start = given | {name: walk.made[place] for name, place in below.places.items()}
        start = {name: start[name] for name in below.lower.output}
        between = _cut_out(start, named, f"{model.name}_between")
    lower = keras.Model(inputs, named, name=f"{model.name}_below")
    return Parts(lower, _cut_out(named, outputs, f"{model.name}_above"), places, between)


class _Walk:
    """Once through the calls of a model, which tells what stays the same through a stage.

    Attributes:
        fixed: The tensors that do.
        boundary: Those of them that something else needs.
        origins: Of those that no layer with weights had a part in, the names of the inputs that they are of.
        made: Those that were computed, by place.
    """

    def __init__(
        self, given: Mapping[str, keras.KerasTensor], backbone: set[int], below: Parts | None
    ) -> None:
        self.fixed = {id(tensor) for tensor in given.values()}
        self.boundary: dict[int, keras.KerasTensor] = {}
        self.origins = {id(tensor): {name} for name, tensor in given.items()}
        self.made: dict[Place, keras.KerasTensor] = {}
        self._backbone = backbone
        self._numbers = count()
        self._start = set() if below is None else set(below.places.values())
        self._above = set() if below is None else {id(given[x]) for x in below.lower.output if x in given}

    def call(self, operation: Any, *args: Any, inside: bool = False, **kwargs: Any) -> Any:
        """`inside` the backbone, where chance is switched off?"""
        if is_functional(operation):
            inside = inside or any(id(layer) in self._backbone for layer in operation._flatten_layers())
            return replay(operation, args[0], partial(self.call, inside=inside))
        needed = [tensor for tensor in keras.tree.flatten((args, kwargs)) if _is_symbolic(tensor)]
        number, outputs = next(self._numbers), operation(*args, **kwargs)
        if not all(id(tensor) in self.fixed for tensor in needed) or not _is_constant(operation, inside):
            self.boundary.update({id(tensor): tensor for tensor in needed if id(tensor) in self.fixed})
            return outputs
        follows = all(id(tensor) in self._above for tensor in needed)
        of_inputs = None
        if not getattr(operation, "weights", ()) and all(id(tensor) in self.origins for tensor in needed):
            of_inputs = set().union(*(self.origins[id(tensor)] for tensor in needed))
        for which, tensor in enumerate(keras.tree.flatten(outputs)):
            self.made[number, which] = tensor
            self.fixed.add(id(tensor))
            if follows or (number, which) in self._start:
                self._above.add(id(tensor))
            if of_inputs is not None:
                self.origins[id(tensor)] = of_inputs
        return outputs

    def leads_to(self, boundary: Mapping[str, keras.KerasTensor]) -> bool:
        """Whether a boundary can be computed from the one below, and all of that is still the same."""
        is_fixed = all(place in self.made for place in self._start)
        return is_fixed and all(id(tensor) in self._above for tensor in boundary.values())


def _cut_out(boundary: dict[str, Any], outputs: Any, name: str) -> keras.Model:
    """From a boundary to what is above it. Keras wants the inputs' names to be those of the dict."""
    inputs = {key: keras.Input(x.shape[1:], dtype=x.dtype, name=key) for key, x in boundary.items()}
    # Keras cuts where a tensor is taken in, and knows none that goes right through.
    through = {id(tensor): inputs[key] for key, tensor in boundary.items()}
    computed = [tensor for tensor in keras.tree.flatten(outputs) if id(tensor) not in through]
    again: list[Any] = []
    if computed:
        cut = keras.Model(list(boundary.values()), computed)
        again = replay(
            cut, list(inputs.values()), lambda operation, *args, **kwargs: operation(*args, **kwargs)
        )
    through |= {id(tensor): new for tensor, new in zip(computed, again, strict=True)}
    found = keras.tree.map_structure(lambda tensor: through[id(tensor)], outputs)
    return keras.Model(inputs, found, name=name)


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
