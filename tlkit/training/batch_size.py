"""How many examples a step takes, and what to do when they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import keras
import numpy as np
import psutil
import tensorflow as tf

from tlkit.errors import ConfigError

DEFAULT = 32
FLOAT32_BYTES = 4
# A training step holds each activation and its gradient; half of the free memory stays free.
COPIES = 2
USABLE = 0.5


def choose_batch_size(
    spec: Literal["auto"] | int, model: keras.Model, n_train: int, n_replicas: int, sequence_length: int = 1
) -> int:
    """The global batch size: the given one, or for `auto` the largest power of two up to 32 that fits.

    Args:
        spec: `auto` or a number of examples over all replicas.
        model: Its activations are counted, as if all of them were trained.
        n_train: Training examples; a batch is never larger.
        sequence_length: Tokens of a text, where the model takes any number of them.
        n_replicas: Every replica takes the same number of examples: Keras fails on an uneven first batch.

    Raises:
        ConfigError: The given size does not divide among the replicas, or there are fewer examples.
    """
    if n_train < n_replicas:
        raise ConfigError(
            f"{n_train} training examples are too few for {n_replicas} replicas. Use strategy: cpu."
        )
    if spec != "auto" and spec % n_replicas:
        raise ConfigError(
            f"training.global_batch_size must be a multiple of the {n_replicas} replicas, received {spec}. "
            f"Use {spec + n_replicas - spec % n_replicas}."
        )
    size = DEFAULT if spec == "auto" else spec
    while (
        spec == "auto"
        and size > n_replicas
        and size / n_replicas * _step_bytes(model, sequence_length) > USABLE * _free_bytes()
    ):
        size //= 2
    size = max(n_replicas, min(size, n_train))
    return size - size % n_replicas


def require_examples(n_validation: int, n_replicas: int) -> None:
    """Raise the ConfigError where a replica would be without an example to validate on, and its loss NaN."""
    if 0 < n_validation < n_replicas:
        raise ConfigError(
            f"{n_validation} validation examples are too few for {n_replicas} replicas. Use a larger "
            "data.split.validation, or strategy: cpu."
        )


def find_fitting(size: int, step: Callable[[int], object], n_replicas: int = 1) -> int | None:
    """The largest halving of `size` for which `step` does not run out of memory, or None.

    Args:
        size: The global batch size that did not fit.
        step: Runs one training step on a batch of the given size.
        n_replicas: Only its multiples are tried.
    """
    while size > n_replicas:
        size = max(n_replicas, size // 2 - size // 2 % n_replicas)
        try:
            step(size)
        except tf.errors.ResourceExhaustedError:
            continue
        return size
    return None


def _step_bytes(model: keras.Model, sequence_length: int) -> float:
    layers = model._flatten_layers(include_self=False)
    shapes = [
        tensor.shape
        for layer in layers
        for node in getattr(layer, "_inbound_nodes", ())
        for tensor in node.output_tensors
    ]
    known = [
        np.prod([sequence_length if side is None else side for side in shape[1:]], dtype="float64")
        for shape in shapes
    ]
    return float(sum(known)) * FLOAT32_BYTES * COPIES


def _free_bytes() -> float:
    """Free memory of the machine; a GPU tells its own only by running out of it."""
    if tf.config.list_logical_devices("GPU"):
        return float("inf")
    return float(psutil.virtual_memory().available)
