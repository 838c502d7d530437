"""Divide a model at the boundary between what a stage leaves as it is and what it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    `features_1` …) were computed, and the others are inputs that are needed above, by name. `lower` holds
    nothing that a stage changes; `upper` takes the boundary. `between` leads from a boundary below to this
    one, where there was one. `places` are those of the features in the model's graph.
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
    What comes from the inputs without weights, and what is the same for every example, such as a table of
    positions, does not cross the boundary: it is computed again above.

    Args:
        model: The backbone, a model inside it, with its head.
        groups: The backbone's layer groups.
        keep: Inputs of the model that the boundary has in any case.
        below: An earlier boundary of the model, whose features may be there. It is left alone where anything
            below it trains now.
    """
    with _distinct_names(model):
        return _divide(model, {id(layer) for group in groups for layer in group.layers}, keep, below)


def _divide(model: keras.Model, backbone: set[int], keep: Sequence[str], below: Parts | None) -> Parts | None:
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name), model.input
    )
    given = {tensor.name: tensor for tensor in keras.tree.flatten(inputs)}
    walk = _Walk(given, backbone, below)
    outputs = replay(model, inputs, walk.call)
    place_of = {id(tensor): place for place, tensor in walk.made.items()}
    computed = [place_of[key] for key in walk.boundary if key in place_of]
    if not computed:
        return None
    places = {f"{FEATURES}_{number}" if number else FEATURES: place for number, place in enumerate(computed)}
    named = {name: walk.made[place] for name, place in places.items()}
    passed = {name for name, tensor in given.items() if id(tensor) in walk.boundary or name in keep}
    named |= {name: given[name] for name in sorted(passed)}
    between = None
    if below is not None and walk.leads_to(named):
        start = given | {name: walk.made[place] for name, place in below.places.items()}
        start = {name: start[name] for name in below.lower.output}
        between = _cut_out(start, named, f"{model.name}_between")
    lower = keras.Model(inputs, named, name=f"{model.name}_below")
    return Parts(lower, _cut_out(named, outputs, f"{model.name}_above"), places, between)


class _Walk:
    """Once through the calls of a model, which tells what stays the same through a stage.

    Tensors are known by their id.

    Attributes:
        fixed: The tensors that do.
        boundary: Those of them that something else needs, or that this is computed from again.
        origins: Of those that are computed again above the boundary, what they come from.
        alike: Those that are the same for every example.
        made: Those that were computed, by place.
    """

    def __init__(
        self, given: Mapping[str, keras.KerasTensor], backbone: set[int], below: Parts | None
    ) -> None:
        self.fixed = {id(tensor) for tensor in given.values()}
        self.boundary: dict[int, None] = {}  # in order, as they are needed
        self.origins = {id(tensor): [id(tensor)] for tensor in given.values()}
        self.alike: set[int] = set()
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
        needed = [id(tensor) for tensor in keras.tree.flatten((args, kwargs)) if _is_symbolic(tensor)]
        number, outputs = next(self._numbers), operation(*args, **kwargs)
        origins = [x for key in needed if key in self.fixed for x in self.origins.get(key, [key])]
        if not self.fixed.issuperset(needed) or not _is_constant(operation, inside):
            self.boundary |= dict.fromkeys(origins)
            return outputs
        follows = self._above.issuperset(needed)
        is_alike = _gives_zeros(operation) or self.alike.issuperset(needed)
        is_again = (
            all(key in self.origins or key in self.alike for key in needed)
            and (is_alike or not getattr(operation, "weights", ()))
            and not _draws(operation)
        )
        for which, tensor in enumerate(keras.tree.flatten(outputs)):
            self.made[number, which] = tensor
            self.fixed.add(id(tensor))
            if follows or (number, which) in self._start:
                self._above.add(id(tensor))
            if is_alike:
                self.alike.add(id(tensor))
            if is_again:
                self.origins[id(tensor)] = origins
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


@contextmanager
def _distinct_names(model: keras.Model) -> Iterator[None]:
    """Inside, no two operations of a model, and of those in it, have one name. Keras wants that of every
    model that it makes; the name of one in the head may be that of one in the backbone."""
    operations = {id(operation): operation for operation in _operations(model)}.values()
    names = [operation.name for operation in operations]
    for number, operation in enumerate(operations):
        operation.name = f"operation_{number}"
    try:
        yield
    finally:
        for operation, name in zip(operations, names, strict=True):
            operation.name = name


def _operations(model: keras.Model) -> Iterator[Any]:
    for operation in model.operations:
        yield from _operations(operation) if is_functional(operation) else [operation]


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
    return known and not _draws(operation) and not operation.weights


def _draws(operation: Any) -> bool:
    """Whether it is a matter of chance what an operation gives in training."""
    layers = operation._flatten_layers() if isinstance(operation, keras.layers.Layer) else ()
    return any(getattr(layer, "seed_generator", None) is not None for layer in layers)


def _gives_zeros(operation: Any) -> bool:
    return not isinstance(operation, keras.layers.Layer) and type(operation).__name__ == "ZerosLike"


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)
