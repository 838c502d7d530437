"""Vision transformers of KerasHub whose blocks are all in one layer there: ViT, DeiT, DINOv2, DINOv3.

The loop over the blocks is unrolled into a functional graph, so that each block freezes and unfreezes by
itself and the model can be cut between any two. Blocks and numbers are KerasHub's: at the size of picture
that the positions were trained for, the outputs are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tlkit.backbones.keras_hub_layer import KerasHubLayer, RotaryBlock
from tlkit.backbones.patch_tokens import PatchTokens


@dataclass(frozen=True)
class Tokens:
    """What differs between the families. `tokens` are those in front of the patches that have a position;
    `block_arguments` the arguments of the backbone that its blocks take too."""

    block: str
    tokens: int
    block_arguments: tuple[str, ...]


_ALL = ("num_heads", "hidden_dim")
FAMILIES = {
    "ViTBackbone": Tokens(
        "vit_block",
        1,
        (
            *_ALL,
            "mlp_dim",
            "use_mha_bias",
            "use_mlp_bias",
            "dropout_rate",
            "attention_dropout",
            "layer_norm_epsilon",
        ),
    ),
    "DeiTBackbone": Tokens(
        "deit_block",
        2,
        (
            *_ALL,
            "intermediate_dim",
            "use_mha_bias",
            "dropout_rate",
            "attention_dropout",
            "layer_norm_epsilon",
        ),
    ),
    # The two have no drop_path_rate here: KerasHub's layer for it does not drop (tried on KerasHub 0.32).
    "DINOV2Backbone": Tokens(
        "dinov2_block",
        1,
        (*_ALL, "intermediate_dim", "layer_scale_init_value", "use_swiglu_ffn", "dropout_rate"),
    ),
    "DINOV3Backbone": Tokens(
        "dinov3_block",
        1,
        (
            *_ALL,
            "intermediate_dim",
            "layer_scale_init_value",
            "hidden_activation",
            "use_gated_mlp",
            "use_query_bias",
            "use_key_bias",
            "use_value_bias",
            "use_proj_bias",
            "use_mlp_bias",
            "attention_dropout",
            "layer_norm_eps",
        ),
    ),
}


def build_tokens(backbone: str, image_size: int, arguments: Mapping[str, Any]) -> keras.Model:
    """(N, size, size, 3) → the map of the patch tokens (N, h, w, C), randomly initialised.

    `arguments` are all of KerasHub's class; `image_shape`, of DINOv2 `position_embedding_shape`, is the size
    of picture that the table of positions is for. The layers are called `tokens`, `block1`, `block2` … and
    `norm`.
    """
    family = FAMILIES[backbone]
    patch = _side(arguments["patch_size"])
    grid = image_size // patch
    n_tokens = family.tokens if arguments.get("use_class_token", True) else 0
    registers = arguments.get("num_register_tokens", 0)
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = PatchTokens(
        patch,
        arguments["hidden_dim"],
        tokens=n_tokens,
        registers=registers,
        position_grid=_position_grid(backbone, arguments, patch),
        antialias=arguments.get("antialias_in_interpolation", False),
        use_bias=arguments.get("use_patch_bias", True),
        name="tokens",
    )(inputs)
    if arguments.get("dropout_rate"):
        x = keras.layers.Dropout(arguments["dropout_rate"], name="tokens_dropout")(x)
    for number in range(1, arguments["num_layers"] + 1):
        x = _block(backbone, arguments, (grid, grid), n_tokens + registers, f"block{number}")(x)
    epsilon = arguments.get("layer_norm_epsilon", arguments.get("layer_norm_eps", 1e-6))
    x = keras.layers.LayerNormalization(epsilon=epsilon, name="norm")(x)
    if n_tokens + registers:
        x = keras.layers.Cropping1D((n_tokens + registers, 0), name="patches")(x)
    x = keras.layers.Reshape((grid, grid, arguments["hidden_dim"]), name="map")(x)
    return keras.Model(inputs, x, name=family.block.removesuffix("_block"))


def class_token(model: keras.Model) -> keras.KerasTensor | None:
    """What a model of `build_tokens` says of its class token, (N, C); None where it has none."""
    layers = {layer.name: layer for layer in model.layers}
    tokens = layers.get("tokens")
    if not isinstance(tokens, PatchTokens) or not tokens.tokens or "norm" not in layers:
        return None
    given = layers["norm"].output
    first = keras.layers.Cropping1D((0, given.shape[1] - 1), name="class_token")(given)
    return keras.layers.Reshape((given.shape[-1],), name="pooled")(first)


def copy_tokens(whole: keras.Model, model: keras.Model) -> None:
    """The weights of KerasHub's own model of the family into one of `build_tokens`."""
    embedding, encoder, norm = _parts(whole)
    tokens = [
        keras.ops.convert_to_numpy(getattr(embedding, name))
        for name in ("class_token", "cls_token", "distillation_token")
        if hasattr(embedding, name)
    ]
    values = [np.concatenate(tokens, axis=1)] if tokens else []
    if hasattr(embedding, "register_tokens"):
        values.append(keras.ops.convert_to_numpy(embedding.register_tokens))
    for name in ("position_embeddings", "position_embedding"):
        if hasattr(embedding, name):
            table = getattr(embedding, name)
            table = keras.ops.convert_to_numpy(getattr(table, "embeddings", table))
            values.append(table.reshape((1, *table.shape[-2:])))
    patches = getattr(embedding, "patch_embedding", None) or embedding.patch_embeddings.projection
    model.get_layer("tokens").set_weights([*values, *patches.get_weights()])
    for number, block in enumerate(encoder, start=1):
        model.get_layer(f"block{number}").set_weights(block.get_weights())
    model.get_layer("norm").set_weights(norm.get_weights())


def _parts(whole: keras.Model) -> tuple[Any, Any, Any]:
    """The embedding, the blocks and the last normalisation of KerasHub's own model."""
    if hasattr(whole, "encoder"):
        return whole.embeddings, whole.encoder.layers, whole.layernorm
    layers = {layer.name.split("_", 1)[-1]: layer for layer in whole.layers}
    encoder = layers["encoder"]
    return layers["patching_and_embedding"], encoder.encoder_layers, encoder.layer_norm


def _block(
    backbone: str, arguments: Mapping[str, Any], grid: tuple[int, int], prefix: int, name: str
) -> KerasHubLayer:
    family = FAMILIES[backbone]
    own = {key: arguments[key] for key in family.block_arguments if key in arguments}
    if backbone == "DINOV3Backbone":
        return RotaryBlock(family.block, own, grid, arguments["rope_theta"], prefix, name=name)
    return KerasHubLayer(family.block, own, name=name)


def _position_grid(backbone: str, arguments: Mapping[str, Any], patch: int) -> int | None:
    if backbone == "DINOV3Backbone":
        return None
    name = "position_embedding_shape" if backbone == "DINOV2Backbone" else "image_shape"
    return int(arguments[name][0]) // patch


def _side(patch_size: Any) -> int:
    return int(patch_size) if isinstance(patch_size, int | float) else int(patch_size[0])
