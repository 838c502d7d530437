"""The pretrained model without its head, and the tensors that it offers to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from tlkit.zoo.entry import ZooEntry


@dataclass(frozen=True)
class Backbone:
    """A pretrained Keras model and its zoo entry. `features` are its symbolic outputs, by name.

    Pictures: `model` takes one float32 tensor (N, height, width, 3), scaled as `entry.input.scaling` says,
    and gives the feature map (N, h, w, C), which is the feature `"map"`; where it has a class token, that is
    the feature `"pooled"` (N, C). A model that gives vectors (N, C) has the feature `"pooled"` alone.

    Texts: `model` takes a dict of int32 (N, T), `"token_ids"` and, where `entry.input` says so,
    `"padding_mask"` (1 at tokens, 0 at padding) and `"segment_ids"`; it gives a dict, `"sequence"` (N, T, C)
    and, where the entry has the layer group `pooler`, `"pooled"` (N, C), a pretrained summary of the text.
    A SavedModel may take strings instead, `"text"` (N,), and give `"pooled"` alone; or take and give whatever
    it does, by its own names, where `entry.modality` is "other".

    `make_bare` makes the same backbone without `"pooled"`, where that takes more than leaving out the tensor.
    """

    entry: ZooEntry
    model: keras.Model
    features: dict[str, keras.KerasTensor]
    make_bare: Callable[[], Backbone] | None = None

    def for_head(self, uses_pooler: bool) -> Backbone:
        """The same backbone for a head that looks at `"pooled"`, or does not.

        A pooler that is not looked at is neither trained nor counted. Of pictures the model gives one tensor,
        the one that is looked at. The layers and their weights are shared.
        """
        if self.entry.modality == "image":
            return self._giving("pooled" if uses_pooler else "map")
        return self if uses_pooler else self.without_pooler()

    def _giving(self, name: str) -> Backbone:
        if name not in self.features or len(self.features) == 1:
            return self
        tensor = self.features[name]
        model = self.model
        if tensor is not model.output:
            model = keras.Model(model.input, tensor, name=model.name)
        return Backbone(self.entry, model, {name: tensor})

    def without_pooler(self) -> Backbone:
        """The same backbone without `"pooled"` of its texts, and without the layers that make it."""
        if "pooled" not in self.features or "sequence" not in self.features:
            return self
        if self.make_bare is not None:
            return self.make_bare()
        features = {name: tensor for name, tensor in self.features.items() if name != "pooled"}
        model = keras.Model(self.model.input, features, name=self.model.name)
        groups = {name: pattern for name, pattern in self.entry.layer_groups.items() if name != "pooler"}
        entry = self.entry.model_copy(update={"layer_groups": groups, "params": model.count_params()})
        return Backbone(entry, model, features)
