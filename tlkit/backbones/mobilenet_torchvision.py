"""MobileNetV2 as torchvision trained it, in plain Keras layers.

Sandler et al., MobileNetV2, CVPR 2018. Against keras.applications: pixels are padded on both sides before a
stride of 2 (Keras's "same" pads one), and BatchNorm's epsilon is 1e-5; so the weights do not fit there.
"""

from __future__ import annotations

from pathlib import Path

import keras

from tlkit.backbones.pth import read_state_dict
from tlkit.backbones.torch_weights import assign_batch_norm, assign_convolution, assign_dense, check_all_used

# Expansion, channels, repeats, stride of the first repeat.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def build_mobilenet_torchvision(image_size: int, *, top: bool = False) -> keras.Model:
    """Feature extractor (N, size, size, 3) → (N, size/32, size/32, 1280), randomly initialised.

    With `top`, the classifier on it: (N, 1000) ImageNet logits.
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = _convolution(inputs, 32, 3, 2, "stem")
    for number, (expansion, channels, repeats, stride) in enumerate(STAGES, 1):
        for index in range(repeats):
            name = f"block{number}{chr(97 + index)}"
            x = _block(x, expansion, channels, stride if index == 0 else 1, index > 0, name)
    x = _convolution(x, 1280, 1, 1, "top")
    if top:
        x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
        x = keras.layers.Dense(1000, name="logits")(x)
    return keras.Model(inputs, x, name="mobilenet_v2_torchvision")


def load_mobilenet_torchvision(model: keras.Model, path: Path) -> None:
    """Fill `model`, with or without its classification layer, from torchvision's `.pth`."""
    state = read_state_dict(path)
    layers = {layer.name: layer for layer in model.layers}
    used: set[str] = set()
    for name, (convolution, norm) in _torch_names(layers).items():
        used |= assign_convolution(layers[f"{name}_conv"], state, convolution)
        used |= assign_batch_norm(layers[f"{name}_bn"], state, norm)
    if "logits" in layers:
        assign_dense(layers["logits"], state, "classifier.1")
    used |= {"classifier.1.weight", "classifier.1.bias"}
    check_all_used(state, used, path)


def _torch_names(layers: dict[str, keras.layers.Layer]) -> dict[str, tuple[str, str]]:
    """Our name of a convolution with its BatchNorm → the names of both in torchvision's state dict."""
    blocks = sorted({name.split("_")[0] for name in layers if name.startswith("block")})
    names = {"stem": ("features.0.0", "features.0.1")}
    for number, block in enumerate(blocks, 1):
        parts = [part for part in ("expand", "depthwise") if f"{block}_{part}_conv" in layers]
        for index, part in enumerate(parts):
            prefix = f"features.{number}.conv.{index}"
            names[f"{block}_{part}"] = (f"{prefix}.0", f"{prefix}.1")
        prefix = f"features.{number}.conv"
        names[f"{block}_project"] = (f"{prefix}.{len(parts)}", f"{prefix}.{len(parts) + 1}")
    last = len(blocks) + 1
    return {**names, "top": (f"features.{last}.0", f"features.{last}.1")}


def _block(
    x: keras.KerasTensor, expansion: int, channels: int, stride: int, residual: bool, name: str
) -> keras.KerasTensor:
    """Inverted residual: widen, depthwise convolution, project without activation."""
    inputs = x
    if expansion > 1:
        x = _convolution(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand")
    x = _padded(x, 3, f"{name}_depthwise")
    x = keras.layers.DepthwiseConv2D(
        3,
        stride,
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise_conv",
    )(x)
    x = _norm_and_relu6(x, f"{name}_depthwise")
    x = _convolution(x, channels, 1, 1, f"{name}_project", activate=False)
    return keras.layers.Add(name=f"{name}_add")([x, inputs]) if residual else x


def _convolution(
    x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str, activate: bool = True
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        channels,
        kernel,
        stride,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(_padded(x, kernel, name))
    return _norm_and_relu6(x, name, activate)


def _padded(x: keras.KerasTensor, kernel: int, name: str) -> keras.KerasTensor:
    return keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x) if kernel > 1 else x


def _norm_and_relu6(x: keras.KerasTensor, name: str, activate: bool = True) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if activate else x
