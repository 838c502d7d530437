"""Put the weights of a DINOv2 that was exported to ONNX from Hugging Face's class into tlkit's model."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from tlkit.backbones.onnx_file import Array, read_onnx
from tlkit.errors import FetchError

_CLASS_TOKEN = "embeddings.cls_token"
_BLOCK = {  # variable of KerasHub's block → tensor of PyTorch's
    "norm1/gamma": "norm1.weight",
    "norm1/beta": "norm1.bias",
    **{
        f"attention/attention/{name}/{ours}": f"attention.attention.{name}.{theirs}"
        for name in ("query", "key", "value")
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    },
    "attention/attention/attention_output/kernel": "attention.output.dense.weight",
    "attention/attention/attention_output/bias": "attention.output.dense.bias",
    "layer_scale1/lambda1": "layer_scale1.lambda1",
    "norm2/gamma": "norm2.weight",
    "norm2/beta": "norm2.bias",
    "mlp/fc1/kernel": "mlp.fc1.weight",
    "mlp/fc1/bias": "mlp.fc1.bias",
    "mlp/fc2/kernel": "mlp.fc2.weight",
    "mlp/fc2/bias": "mlp.fc2.bias",
    "layer_scale2/lambda1": "layer_scale2.lambda1",
}


def load_dinov2_onnx(model: keras.Model, path: Path) -> None:
    """Fill `model`, a DINOv2 of `build_keras_hub_image`, from the tensors of an ONNX file.

    What the file holds beside the encoder (a decoder, a classifier) is left out. Raises FetchError when a
    tensor is missing, has another shape, or belongs to the encoder and has no place.
    """
    tensors = read_onnx(path)
    prefix = next((name.removesuffix(_CLASS_TOKEN) for name in tensors if name.endswith(_CLASS_TOKEN)), None)
    if prefix is None:
        raise FetchError(f"{path} is not a DINOv2: it has no tensor {_CLASS_TOKEN!r}")
    names = _names(model)
    wanted = {prefix + name for name in names.values()}
    left = sorted(name for name in tensors if name.startswith(prefix) and prefix and name not in wanted)
    if left:
        raise FetchError(f"{path} holds {len(left)} tensors that the encoder has no place for: {left[0]!r} …")
    positions = model.get_layer("tokens").positions
    tensors[prefix + names[positions.path]] = _positions(tensors, tuple(positions.shape), path)
    for weight in model.weights:
        name = prefix + names[weight.path]
        if name not in tensors:
            raise FetchError(f"{path} lacks the tensor {name!r}")
        weight.assign(_fitted(tensors[name], weight, name, path))


def _names(model: keras.Model) -> dict[str, str]:
    tokens, norm = model.get_layer("tokens"), model.get_layer("norm")
    names = {
        tokens.learned_tokens.path: _CLASS_TOKEN,
        tokens.positions.path: "embeddings.position_embeddings",
        tokens.projection.kernel.path: "embeddings.patch_embeddings.projection.weight",
        tokens.projection.bias.path: "embeddings.patch_embeddings.projection.bias",
        norm.gamma.path: "layernorm.weight",
        norm.beta.path: "layernorm.bias",
    }
    for layer in model.layers:
        if layer.name.startswith("block"):
            number = int(layer.name.removeprefix("block")) - 1
            for weight in layer.weights:
                own = weight.path.removeprefix(f"{layer.path}/{layer.layer.name}/")
                names[weight.path] = f"encoder.layer.{number}.{_BLOCK[own]}"
    return names


def _positions(tensors: dict[str, Array], shape: tuple[int, ...], path: Path) -> Array:
    """The table of positions. The exporter splits it, without a name, into the class token's and the rest."""
    named = [array for name, array in tensors.items() if name.endswith("embeddings.position_embeddings")]
    if named:
        return named[0]
    wanted = ((1, 1, shape[2]), (1, shape[1] - 1, shape[2]))
    parts = [
        [array for name, array in tensors.items() if name.startswith("onnx::") and array.shape == size]
        for size in wanted
    ]
    if any(len(found) != 1 for found in parts):
        raise FetchError(f"{path} has no table of positions of the shape {shape}")
    return np.concatenate([found[0] for found in parts], axis=1)


def _fitted(value: Array, weight: keras.Variable, name: str, path: Path) -> Array:
    shape, received = tuple(weight.shape), value.shape
    if weight.path.endswith("/kernel"):
        # PyTorch has (out, in) and, of a convolution, (out, in, height, width).
        value = value.transpose((2, 3, 1, 0)) if value.ndim == 4 else value.T
    # Attention has its heads on axes of their own; everything else has the same axes.
    if value.size != np.prod(shape) or (value.ndim == len(shape) and value.shape != shape):
        raise FetchError(f"{name!r} in {path} has the shape {received}; {weight.path!r} needs {shape}")
    return value.reshape(shape)
