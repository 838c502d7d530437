"""The pretrained model without its head, and the tensors that it offers to one."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from tlkit.zoo.entry import ZooEntry


@dataclass(frozen=True)
class Backbone:
    """A pretrained Keras model and its zoo entry.

    `model` takes one float32 tensor (N, height, width, 3), scaled as `entry.input.scaling` says, and gives
    the feature map (N, h, w, C). `features` are the symbolic tensors that a head attaches to, by name: for
    pictures `"map"`, the model's output.
    """

    entry: ZooEntry
    model: keras.Model
    features: dict[str, keras.KerasTensor]
