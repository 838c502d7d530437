"""The pretrained model without its head, and the tensors that it offers to one."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from tlkit.zoo.entry import ZooEntry


@dataclass(frozen=True)
class Backbone:
    """A pretrained Keras model and its zoo entry. `features` are its symbolic outputs, by name.

    Pictures: `model` takes one float32 tensor (N, height, width, 3), scaled as `entry.input.scaling` says,
    and gives the feature map (N, h, w, C), which is the feature `"map"`.

    Texts: `model` takes a dict of int32 (N, T), `"token_ids"` and, where `entry.input` says so,
    `"padding_mask"` (1 at tokens, 0 at padding) and `"segment_ids"`; it gives a dict, `"sequence"` (N, T, C)
    and, where the entry has the layer group `pooler`, `"pooled"` (N, C), a pretrained summary of the text.
    """

    entry: ZooEntry
    model: keras.Model
    features: dict[str, keras.KerasTensor]

    def without_pooler(self) -> Backbone:
        """The same backbone for a head that does not look at `"pooled"`: it is neither trained nor counted.

        The layers and their weights are shared.
        """
        if "pooled" not in self.features:
            return self
        features = {name: tensor for name, tensor in self.features.items() if name != "pooled"}
        model = keras.Model(self.model.input, features, name=self.model.name)
        groups = {name: pattern for name, pattern in self.entry.layer_groups.items() if name != "pooler"}
        entry = self.entry.model_copy(update={"layer_groups": groups, "params": model.count_params()})
        return Backbone(entry, model, features)
