"""Divide a backbone into the layer groups that freeze and unfreeze together."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import keras

from tlkit.backbones.backbone import Backbone
from tlkit.backbones.graph import Call, calls_of, layers_with_weights
from tlkit.errors import ConfigError


@dataclass(frozen=True)
class LayerGroup:
    """Consecutive layers of a backbone.

    `layers` are the layers that hold weights themselves, sub-layers included, or a SavedModel without any.
    `cut` is the one tensor through which everything above the group gets what was computed of the example, as
    late as possible (after the group's activations and additions); None where several tensors leave the
    group. The model's inputs, such as the padding mask, are at hand above every cut.
    """

    name: str
    layers: tuple[keras.layers.Layer, ...]
    cut: keras.KerasTensor | None

    @property
    def weights(self) -> tuple[str, ...]:
        """The paths of the weights that the layers hold now: adapters come and go."""
        return tuple(dict.fromkeys(weight.path for layer in self.layers for weight in layer.weights))


def group_layers(backbone: Backbone) -> tuple[LayerGroup, ...]:
    """The layer groups of a backbone, input to output, by the regexes of its zoo entry.

    Raises ConfigError when a layer with weights matches no regex or several, when a group is empty, or
    when a group needs what a later one computes: then freezing from below would not be what it says.
    """
    model, patterns = backbone.model, backbone.entry.layer_groups
    position = {name: index for index, name in enumerate(patterns)}
    members: dict[str, list[keras.layers.Layer]] = {name: [] for name in patterns}
    group_of: dict[int, int] = {}
    mistakes = []
    holding = list(layers_with_weights(model))
    if not holding:  # a SavedModel that computes with constants: a group with nothing to train
        holding = [(layer.name, layer) for layer in model.layers if layer.name in patterns]
    for path, layer in holding:
        matching = [name for name, pattern in patterns.items() if re.fullmatch(pattern, path)]
        if len(matching) != 1:
            mistakes.append(f"{path!r} matches {', '.join(matching) or 'none'}")
            continue
        members[matching[0]] += _leaves(layer) or [layer]
        group_of[id(layer)] = position[matching[0]]
    mistakes += [f"group {name!r} is empty" for name, layers in members.items() if not layers]
    if mistakes:
        raise ConfigError(f"The layer groups of {backbone.entry.name!r} do not fit: {_listed(mistakes)}")
    cuts = _cuts(model, group_of, backbone.entry.name, list(patterns))
    return tuple(
        LayerGroup(name, tuple(layers), cuts.get(position[name])) for name, layers in members.items()
    )


def _leaves(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layer itself and the layers inside it, as far as they hold weights of their own."""
    # Private: there is no public way to the layers inside a layer that is not a model. Keras 3.15.1.
    nested = list(layer._flatten_layers(include_self=False, recursive=False))
    below = {id(weight) for child in nested for weight in child.weights}
    own = [layer] if any(id(weight) not in below for weight in layer.weights) else []
    return own + [leaf for child in nested for leaf in _leaves(child)]


def _cuts(
    model: keras.Model, group_of: dict[int, int], backbone: str, names: list[str]
) -> dict[int, keras.KerasTensor]:
    """The cut above each group that has one, by the group's position.

    In an order in which every call follows what it needs, a tensor is alone between below and above exactly
    where it is the only one that was computed and is still needed. Later candidates replace earlier ones.
    """
    calls = calls_of(model)
    last_use = {id(tensor): place for place, call in enumerate(calls) for tensor in call.inputs}
    last_use |= {id(tensor): len(calls) for tensor in model.outputs}
    at_hand = {id(tensor) for tensor in model.inputs}
    needed: dict[int, keras.KerasTensor] = {}
    highest: dict[int, int] = {}  # tensor → the highest group that it depends on
    done, cuts = -1, {}
    # By call: a layer that is called again (ALBERT's shared block) is done after its last call.
    remaining = Counter(group for call in calls for group in _groups_of(call, group_of))
    for place, call in enumerate(calls):
        below = max((highest[id(tensor)] for tensor in call.inputs), default=-1)
        groups = _groups_of(call, group_of)
        if groups and min(groups) < below:
            raise ConfigError(
                f"The layer groups of {backbone!r} are out of order: {call.operation.name!r} in "
                f"{names[min(groups)]!r} needs what {names[below]!r} computes"
            )
        for group in groups:
            remaining[group] -= 1
        done = max([done, *groups])
        highest |= {id(tensor): max([below, *groups]) for tensor in call.outputs}
        needed |= {id(tensor): tensor for tensor in call.outputs if id(tensor) in last_use}
        needed = {
            key: tensor for key, tensor in needed.items() if last_use[key] > place and key not in at_hand
        }
        complete = done >= 0 and not any(remaining[group] for group in range(done + 1))
        if complete and len(needed) == 1:
            cuts[done] = next(iter(needed.values()))
    return cuts


def _groups_of(call: Call, group_of: dict[int, int]) -> list[int]:
    layer = call.operation
    if isinstance(layer, keras.Model):
        return [group_of[id(inner)] for _, inner in layers_with_weights(layer)]
    return [group_of[id(layer)]] if id(layer) in group_of else []


def _listed(mistakes: list[str], shown: int = 8) -> str:
    more = f" and {len(mistakes) - shown} more" if len(mistakes) > shown else ""
    return "; ".join(mistakes[:shown]) + more
