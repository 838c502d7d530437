"""Layers of KerasHub's image backbones, so that each of them can be saved by itself.

KerasHub saves a backbone by the backbone's own arguments; the configs of the layers inside leave out
arguments or name some that the constructor does not take (tried on KerasHub 0.32). A graph that is put
together anew from these layers needs layers that know their arguments.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from tlkit.backbones.keras_hub_import import import_keras_hub

# Private: KerasHub exports its backbones, not their layers; pyproject.toml pins its minor version. A file can
# name only what is in this table.
LAYERS = {
    "deit_block": ("deit.deit_layers", "DeiTEncoderBlock"),
    "dinov2_block": ("dinov2.dinov2_layers", "DINOV2Layer"),
    "dinov3_block": ("dinov3.dinov3_layers", "DINOV3Layer"),
    "hgnet_stage": ("hgnetv2.hgnetv2_layers", "HGNetV2Stage"),
    "hgnet_stem": ("hgnetv2.hgnetv2_layers", "HGNetV2Embeddings"),
    "mit_block": ("mit.mit_layers", "HierarchicalTransformerEncoder"),
    "mit_patches": ("mit.mit_layers", "OverlappingPatchingAndEmbedding"),
    "swin_block": ("swin_transformer.swin_transformer_layers", "SwinTransformerBlock"),
    "swin_merging": ("swin_transformer.swin_transformer_layers", "PatchMerging"),
    "vit_block": ("vit.vit_layers", "ViTEncoderBlock"),
}


@keras.saving.register_keras_serializable("tlkit")
class KerasHubLayer(keras.layers.Layer):
    """One layer of KerasHub, by its key in `LAYERS` and its constructor's arguments (plain values).

    `call_arguments` go into every call. Where the layer gives several tensors, the first is taken.
    """

    def __init__(
        self,
        kind: str,
        arguments: Mapping[str, Any],
        call_arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kind not in LAYERS:
            raise ValueError(f"Unknown kind of layer: {kind!r}. Allowed: {', '.join(LAYERS)}")
        self.kind = kind
        self.arguments = dict(arguments)
        self.call_arguments = dict(call_arguments or {})
        with _policy(self.dtype_policy):  # some of these layers do not pass theirs on to their parts
            self.layer = layer_class(kind)(**self.arguments, dtype=self.dtype_policy, name="layer")
        if kind == "swin_block":  # it is given its mask as an argument, which Keras warns of
            self.layer.attn.supports_masking = True

    def call(self, inputs: Any) -> Any:
        given = self.layer(inputs, **self.call_arguments)
        return given[0] if isinstance(given, tuple) else given

    def get_build_config(self) -> None:
        """None: the layer is built where it is called. Some of KerasHub's cannot be built from a shape."""

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kind": self.kind,
            "arguments": self.arguments,
            "call_arguments": self.call_arguments,
        }


@keras.saving.register_keras_serializable("tlkit")
class RotaryBlock(KerasHubLayer):
    """A block of DINOv3, which turns queries and keys by the positions of their patches.

    In KerasHub the angles are tensors that every block is given; they depend on the grid (h, w) alone, so
    here each block knows them, and one tensor is all that goes from block to block.
    """

    def __init__(
        self,
        kind: str,
        arguments: Mapping[str, Any],
        grid: tuple[int, int],
        theta: float,
        prefix_tokens: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(kind, arguments, **kwargs)
        self.grid = tuple(grid)
        self.theta = theta
        self.prefix_tokens = prefix_tokens

    def call(self, inputs: Any) -> Any:
        angles = self._angles()
        rotation = tuple(keras.ops.cast(part, inputs.dtype) for part in (np.cos(angles), np.sin(angles)))
        return self.layer(inputs, position_embeddings=rotation, num_prefix_tokens=self.prefix_tokens)

    def _angles(self) -> Any:
        """(h·w, width of a head): the patches' centres in −1 to 1, times frequencies, rows then columns."""
        head = self.arguments["hidden_dim"] // self.arguments["num_heads"]
        frequencies = self.theta ** -np.arange(0, 1, 4 / head, dtype="float32")
        sides = [2 * (np.arange(side, dtype="float32") + 0.5) / side - 1 for side in self.grid]
        centers = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
        angles = (2 * np.pi * centers[:, :, None] * frequencies).reshape(len(centers), -1)
        return np.tile(angles, (1, 2)).astype("float32")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["call_arguments"]
        return {**config, "grid": self.grid, "theta": self.theta, "prefix_tokens": self.prefix_tokens}


def layer_class(kind: str) -> Any:
    """KerasHub's class of a kind of layers."""
    import_keras_hub()
    module, name = LAYERS[kind]
    return getattr(importlib.import_module(f"keras_hub.src.models.{module}"), name)


@contextmanager
def _policy(policy: Any) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
