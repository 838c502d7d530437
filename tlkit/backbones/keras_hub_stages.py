"""Backbones of KerasHub that work in stages, from large maps to small ones: Swin, MiT, HGNetV2.

They are put together from KerasHub's layers, with names that say the stage: in KerasHub's own models a stage
is one layer (Swin), all stages are (HGNetV2), or some layers have automatic names (MiT).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tlkit.backbones.keras_hub_layer import KerasHubLayer

Arguments = Mapping[str, Any]


def build_swin(image_size: int, arguments: Arguments) -> keras.Model:
    """(N, size, size, 3) → (N, h, w, C). Layers: `stem_…`, `stage1_block1` …, `stage1_merging` …, `norm`."""
    side, width = image_size // arguments["patch_size"], arguments["embed_dim"]
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = keras.layers.Conv2D(
        width,
        arguments["patch_size"],
        arguments["patch_size"],
        kernel_initializer="lecun_normal",
        name="stem_patches",
    )(inputs)
    x = keras.layers.Reshape((side * side, width), name="stem_tokens")(x)
    if arguments["patch_norm"]:
        x = keras.layers.LayerNormalization(epsilon=1e-5, name="stem_norm")(x)
    x = keras.layers.Dropout(arguments["dropout_rate"], name="stem_dropout")(x)
    depths = arguments["depths"]
    drops = np.linspace(0.0, arguments["drop_path"], sum(depths)).tolist()
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            block = {
                "dim": width,
                "input_resolution": [side, side],
                "num_heads": arguments["num_heads"][stage - 1],
                "window_size": arguments["window_size"],
                "shift_size": arguments["window_size"] // 2 if index % 2 else 0,
                "mlp_ratio": arguments["mlp_ratio"],
                "qkv_bias": arguments["qkv_bias"],
                "dropout_rate": arguments["dropout_rate"],
                "attention_dropout": arguments["attention_dropout"],
                "drop_path": drops[sum(depths[: stage - 1]) + index],
            }
            x = KerasHubLayer("swin_block", block, name=f"stage{stage}_block{index + 1}")(x)
        if stage < len(depths):
            sides = {"H": side, "W": side}
            x = KerasHubLayer("swin_merging", {"dim": width}, sides, name=f"stage{stage}_merging")(x)
            side, width = side // 2, width * 2
    x = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    return keras.Model(inputs, keras.layers.Reshape((side, side, width), name="map")(x), name="swin")


def copy_swin(whole: keras.Model, model: keras.Model) -> None:
    """The weights of KerasHub's own model into one of `build_swin`."""
    _copy(whole.patch_embedding.proj, model, "stem_patches")
    if whole.patch_embedding.norm is not None:
        _copy(whole.patch_embedding.norm, model, "stem_norm")
    for number, stage in enumerate(whole.stages, start=1):
        for index, block in enumerate(stage.blocks, start=1):
            _copy(block, model, f"stage{number}_block{index}")
        if stage.downsample is not None:
            _copy(stage.downsample, model, f"stage{number}_merging")
    _copy(whole.norm, model, "norm")


def build_mit(image_size: int, arguments: Arguments) -> keras.Model:
    """(N, size, size, 3) → (N, h, w, C). Layers: `stage1_patches`, `stage1_block1` …, `stage1_norm` …"""
    inputs = x = keras.Input((image_size, image_size, 3), name="image")
    depths, side = arguments["layerwise_depths"], image_size
    drops = np.linspace(0.0, arguments["max_drop_path_rate"], sum(depths)).tolist()
    for stage, depth in enumerate(depths):
        name, width = f"stage{stage + 1}", arguments["hidden_dims"][stage]
        stride = arguments["layerwise_strides"][stage]
        patches = {
            "project_dim": width,
            "patch_size": arguments["layerwise_patch_sizes"][stage],
            "stride": stride,
        }
        x = KerasHubLayer("mit_patches", patches, name=f"{name}_patches")(x)
        for index in range(depth):
            block = {
                "project_dim": width,
                "num_heads": arguments["layerwise_num_heads"][stage],
                "sr_ratio": arguments["layerwise_sr_ratios"][stage],
                "drop_prob": drops[sum(depths[:stage]) + index],
            }
            x = KerasHubLayer("mit_block", block, name=f"{name}_block{index + 1}")(x)
        x = keras.layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm")(x)
        side //= stride
        x = keras.layers.Reshape((side, side, width), name=f"{name}_map")(x)
    return keras.Model(inputs, x, name="mit")


def copy_mit(whole: keras.Model, model: keras.Model) -> None:
    """The weights of KerasHub's own model into one of `build_mit`."""
    for layer in whole.layers:
        kind, _, numbers = layer.name.partition("_encoder_")
        if kind == "hierarchical":
            stage, index = (int(number) + 1 for number in numbers.split("_"))
            _copy(layer, model, f"stage{stage}_block{index}")
        elif layer.name.startswith("patch_and_embed_"):
            _copy(layer, model, f"stage{int(layer.name.rpartition('_')[2]) + 1}_patches")
    # Named automatically, so by their order.
    norms = [layer for layer in whole.layers if isinstance(layer, keras.layers.LayerNormalization)]
    for number, norm in enumerate(norms, start=1):
        _copy(norm, model, f"stage{number}_norm")


def build_hgnet(image_size: int, arguments: Arguments) -> keras.Model:
    """(N, size, size, 3) → (N, h, w, C). Layers: `stem`, `stage1`, `stage2` …"""
    shared = {
        "use_learnable_affine_block": arguments["use_learnable_affine_block"],
        "data_format": "channels_last",
        "channel_axis": -1,
    }
    stem = {"stem_channels": arguments["stem_channels"], "hidden_act": arguments["hidden_act"], **shared}
    columns = (
        "stage_in_channels",
        "stage_mid_channels",
        "stage_out_channels",
        "stage_num_blocks",
        "stage_num_of_layers",
        "stage_kernel_size",
    )
    filters = arguments["stackwise_stage_filters"]
    stages = {name: [row[place] for row in filters] for place, name in enumerate(columns)}
    stages |= {key: arguments[key] for key in ("apply_downsample", "use_lightweight_conv_block")}
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = KerasHubLayer("hgnet_stem", stem, name="stem")(inputs)
    for index in range(len(filters)):
        stage = {**stages, **shared, "stage_index": index}
        x = KerasHubLayer("hgnet_stage", stage, name=f"stage{index + 1}")(x)
    return keras.Model(inputs, x, name="hgnet")


def copy_hgnet(whole: keras.Model, model: keras.Model) -> None:
    """The weights of KerasHub's own model into one of `build_hgnet`."""
    _copy(whole.embedder_layer, model, "stem")
    for number, stage in enumerate(whole.encoder_layer.stages_list, start=1):
        _copy(stage, model, f"stage{number}")


def _copy(layer: keras.layers.Layer, model: keras.Model, name: str) -> None:
    model.get_layer(name).set_weights(layer.get_weights())
