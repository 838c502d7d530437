"""A real backbone that is small enough to train in a second: three groups, with BatchNorm in each."""

from __future__ import annotations

from typing import Any

import keras

from tlkit.backbones import Backbone
from tlkit.zoo import ZooEntry

GROUPS = {"stem": "stem_.*", "block1": "block1_.*", "block2": "block2_.*"}


def small_entry(image_size: int = 16) -> ZooEntry:
    return ZooEntry.model_validate(
        {
            "name": "small",
            "modality": "image",
            "family": "small",
            "source": {"kind": "file", "path": "small.keras"},
            "input": {
                "image_size": image_size,
                "min_image_size": 16,
                "scaling": {"mean": [127.5] * 3, "std": [127.5] * 3},
            },
            "layer_groups": GROUPS,
            "params": 1,
            "license": "Apache-2.0",
        }
    )


def small_backbone(image_size: int = 16, dropout: float = 0.0) -> Backbone:
    inputs = x = keras.Input((image_size, image_size, 3))
    for name, filters in (("stem", 4), ("block1", 6), ("block2", 8)):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
    model = keras.Model(inputs, x, name="small")
    return Backbone(small_entry(image_size), model, {"map": model.output})


def own_body(inputs: Any, blocks: int = 4, filters: int = 4) -> Any:
    """A small residual network with names of its own, from pictures to a map."""
    x = keras.layers.Conv2D(filters, 3, padding="same", name="entry_conv")(inputs)
    for number in range(blocks):
        y = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"unit{number}_conv")(x)
        y = keras.layers.BatchNormalization(name=f"unit{number}_norm")(y)
        x = keras.layers.Add(name=f"unit{number}_add")([x, y])
        if number in (1, 3):
            x = keras.layers.MaxPooling2D(name=f"unit{number}_pool")(x)
    return x


def own_model(
    size: int | None = 32, head: bool = True, rescaling: bool = False, blocks: int = 4
) -> keras.Model:
    """A model of somebody's own, as no family of the zoo is."""
    inputs = keras.Input((size, size, 3), name="picture")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="to_range")(inputs) if rescaling else inputs
    x = own_body(x, blocks)
    if head:
        x = keras.layers.Dense(5, name="head")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, x, name="mine")
