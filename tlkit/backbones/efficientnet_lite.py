"""EfficientNet-Lite in plain Keras layers, so that a saved model opens wherever Keras does.

Tan and Le, EfficientNet, ICML 2019, scaled as in the Lite variants: ReLU6, no squeeze-and-excitation, stem
and top are not scaled. Stochastic depth, which regularised the training from scratch, is left out: heads
bring their own dropout.

KerasHub's EfficientNetBackbone cannot hold these weights: it pads its strided depthwise convolutions on both
sides, which moves the logits by up to 1.8 (tried on KerasHub 0.32).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import keras

from tlkit.backbones.pth import read_state_dict
from tlkit.backbones.torch_weights import assign_batch_norm, assign_convolution, assign_dense, check_all_used


@dataclass(frozen=True)
class Stage:
    """A run of equal blocks: the first has the stride and changes the width. `channels` is unscaled."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def build_efficientnet_lite(image_size: int, *, width: float, depth: float, top: bool = False) -> keras.Model:
    """Feature extractor (N, size, size, 3) → (N, size/32, size/32, 1280), randomly initialised.

    With `top`, the classifier on it: (N, 1000) ImageNet logits. `width` and `depth` scale the channels and
    the repeats of the blocks; Lite0 has 1.0 and 1.0.
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = _convolution(inputs, 32, 3, 2, "stem")
    for number, stage in enumerate(STAGES, 1):
        # The first and the last stage are not repeated more often in deeper variants.
        repeats = stage.repeats if number in (1, len(STAGES)) else math.ceil(stage.repeats * depth)
        for index in range(repeats):
            x = _block(
                x, stage, _scaled(stage.channels, width), index == 0, f"block{number}{chr(97 + index)}"
            )
    x = _convolution(x, 1280, 1, 1, "top")
    if top:
        x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
        x = keras.layers.Dense(1000, name="logits")(x)
    return keras.Model(inputs, x, name="efficientnet_lite")


def load_efficientnet_lite(model: keras.Model, path: Path) -> None:
    """Fill `model`, with or without its classification layer, from the `.pth` of the PyTorch original."""
    state = read_state_dict(path)
    used: set[str] = set()
    blocks = sorted({layer.name.split("_")[0] for layer in model.layers if layer.name.startswith("block")})
    names = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    for number, block in enumerate(blocks):
        for part, convolution, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            names[f"{block}_{part}"] = (f"_blocks.{number}.{convolution}", f"_blocks.{number}.{norm}")
    layers = {layer.name: layer for layer in model.layers}
    for name, (convolution, norm) in names.items():
        if f"{name}_conv" in layers:  # the first block has no expansion
            used |= assign_convolution(layers[f"{name}_conv"], state, convolution)
            used |= assign_batch_norm(layers[f"{name}_bn"], state, norm)
    if "logits" in layers:
        assign_dense(layers["logits"], state, "_fc")
    used |= {"_fc.weight", "_fc.bias"}
    check_all_used(state, used, path)


def _block(x: keras.KerasTensor, stage: Stage, channels: int, is_first: bool, name: str) -> keras.KerasTensor:
    """Inverted residual: widen, depthwise convolution, project without activation."""
    inputs, stride = x, stage.stride if is_first else 1
    if stage.expansion > 1:
        x = _convolution(x, x.shape[-1] * stage.expansion, 1, 1, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(
        stage.kernel,
        stride,
        "same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise_conv",
    )(x)
    x = _norm_and_relu6(x, f"{name}_depthwise")
    x = _convolution(x, channels, 1, 1, f"{name}_project", activate=False)
    if is_first:
        return x
    return keras.layers.Add(name=f"{name}_add")([x, inputs])


def _convolution(
    x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str, activate: bool = True
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        channels,
        kernel,
        stride,
        "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return _norm_and_relu6(x, name, activate)


def _norm_and_relu6(x: keras.KerasTensor, name: str, activate: bool = True) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
    return keras.layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if activate else x


def _scaled(channels: int, width: float) -> int:
    """The nearest multiple of 8, but not below 90 % of what was asked for."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
