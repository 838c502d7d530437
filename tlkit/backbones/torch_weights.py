"""Put the tensors of a PyTorch state dict into Keras layers: other axis order, other names, equal numbers."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from tlkit.backbones.pth import Array
from tlkit.errors import FetchError

State = dict[str, Array]


def assign_convolution(layer: keras.layers.Layer, state: State, name: str) -> set[str]:
    """Fill a Conv2D or DepthwiseConv2D without bias from `<name>.weight`; gives the names that were used."""
    kernel = _tensor(state, f"{name}.weight")
    # PyTorch has (out, in, height, width), and (channels, 1, height, width) where it is depthwise.
    axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    _assign(layer, [kernel.transpose(axes)], name)
    return {f"{name}.weight"}


def assign_batch_norm(layer: keras.layers.Layer, state: State, name: str) -> set[str]:
    """Fill a BatchNormalization: scale, shift, moving mean and variance."""
    parts = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    _assign(layer, [_tensor(state, part) for part in parts], name)
    return {*parts, f"{name}.num_batches_tracked"}


def assign_dense(layer: keras.layers.Layer, state: State, name: str) -> None:
    """Fill a Dense layer with bias."""
    _assign(layer, [_tensor(state, f"{name}.weight").T, _tensor(state, f"{name}.bias")], name)


def check_all_used(state: State, used: set[str], path: Path) -> None:
    """Raise FetchError when the file holds tensors that the model has no place for."""
    left = sorted(set(state) - used)
    if left:
        raise FetchError(
            f"{path} holds {len(left)} tensors that the model has no place for, like {left[0]!r}"
        )


def _tensor(state: State, name: str) -> Array:
    if name not in state:
        raise FetchError(f"The state dict has no tensor {name!r}")
    return state[name]


def _assign(layer: keras.layers.Layer, values: list[Array], name: str) -> None:
    expected, received = [tuple(weight.shape) for weight in layer.weights], [value.shape for value in values]
    if expected != received:
        raise FetchError(f"{name!r} has the shapes {received}, the layer {layer.path!r} needs {expected}")
    layer.set_weights([np.ascontiguousarray(value) for value in values])
