"""The only place that touches `trainable`, and the proof that it held."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import keras

from tlkit.backbones import is_batch_norm
from tlkit.errors import FrozenWeightsMoved
from tlkit.freezing import LayerGroup
from tlkit.plans import Stage
from tlkit.training.adapters import adapter_weights


def apply_freeze(
    model: keras.Model,
    groups: Sequence[LayerGroup],
    stage: Stage,
    batch_norm: Literal["frozen", "train"] = "frozen",
) -> None:
    """Make trainable what a stage trains, and nothing else. The model must be compiled afterwards.

    BatchNorm stays in inference mode only where each BatchNorm layer's own `trainable` is False: a functional
    model passes `training=True` down whatever was recorded at construction (keras issue 20285).

    Args:
        model: The backbone with its head.
        groups: The backbone's layer groups, input to output.
        stage: What to train.
        batch_norm: `frozen` leaves every BatchNorm of the backbone as it was, in trained groups too.
    """
    model.trainable = True
    n_frozen = len(groups) - stage.n_trained(len(groups))
    for index, group in enumerate(groups):
        for layer in group.layers:
            keep_norm = batch_norm == "frozen" and is_batch_norm(layer)
            adapters = {id(weight) for weight in adapter_weights(layer)}
            layer.trainable = bool(adapters) or (index >= n_frozen and not keep_norm)
            if adapters:  # setting `trainable` of a layer lets go of the weight beside its adapter, too
                for weight in layer.weights:
                    weight.trainable = id(weight) in adapters


def trained_groups(groups: Sequence[LayerGroup], stage: Stage) -> list[str]:
    """The names of the layer groups that a stage trains, or that have adapters now."""
    n_frozen = len(groups) - stage.n_trained(len(groups))
    return [
        group.name
        for index, group in enumerate(groups)
        if index >= n_frozen or any(adapter_weights(layer) for layer in group.layers)
    ]


def frozen_weights(
    groups: Sequence[LayerGroup], stage: Stage, batch_norm: Literal["frozen", "train"] = "frozen"
) -> list[keras.Variable]:
    """Every weight of the backbone that must not move during a stage, statistics included."""
    n_frozen = len(groups) - stage.n_trained(len(groups))
    adapters = {id(weight) for group in groups for layer in group.layers for weight in adapter_weights(layer)}
    return [
        weight
        for index, group in enumerate(groups)
        for layer in group.layers
        if index < n_frozen or (batch_norm == "frozen" and is_batch_norm(layer))
        for weight in layer.weights
        if id(weight) not in adapters
    ]


def moving_statistics(model: keras.Model) -> list[keras.Variable]:
    """What the BatchNorm layers that train count, each replica by its own examples."""
    return [
        weight
        for layer in model._flatten_layers()
        if layer.trainable and is_batch_norm(layer)
        for weight in layer.non_trainable_weights
    ]


def hash_weights(weights: Sequence[keras.Variable]) -> dict[str, str]:
    """SHA-256 of the bytes of each weight, by path."""
    return {weight.path: hashlib.sha256(weight.numpy().tobytes()).hexdigest() for weight in weights}


def check_unchanged(before: dict[str, str], weights: Sequence[keras.Variable], stage: str) -> None:
    """Compare frozen weights with their hashes from before the stage.

    Raises:
        FrozenWeightsMoved: At least one of them changed.
    """
    after = hash_weights(weights)
    moved = [path for path, digest in before.items() if after.get(path) != digest]
    if moved:
        raise FrozenWeightsMoved(
            f"Stage {stage!r} froze {len(before)} weights, but {len(moved)} of them moved: {moved[0]!r} … "
            "The run was stopped; please report this."
        )
