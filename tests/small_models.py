"""A real backbone that is small enough to train in a second: three groups, with BatchNorm in each."""

from __future__ import annotations

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
