"""A backbone with a head on top."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tlkit.backbones import Backbone
from tlkit.errors import ConfigError
from tlkit.heads import Head
from tlkit.heads.pooling import pool

_HDF5_BYTES = 4096  # what the format adds to every variable, rounded up


def build_model(
    backbone: Backbone, head: Head, *, windows: bool = False, words: bool = False, pairs: bool = False
) -> keras.Model:
    """Attach a head to a backbone.

    The backbone stays one nested model, so that it can be taken out again and cut at its layer groups.

    Args:
        backbone: Gives a feature map float32 (N, h, w, C) or vectors (N, C) of pictures, or the outputs for
            every token of a text.
        head: Gives logits (N, classes), values (N, targets), or what its task says.
        windows: A text comes as several windows, int32 (N, windows, T); the outputs are the means over them.
        words: There is the further input `word_starts`, int32 (N, W), for a head that answers for every word.
        pairs: There is the further input `text_b`, strings (N,), of a backbone that takes strings; others
            take a pair as one text.

    Returns:
        A functional model from the backbone's inputs to the head's outputs, not compiled.

    Raises:
        ConfigError: A head of one's own gives another shape than the task needs.
    """
    if backbone.entry.modality == "image":
        inputs: Any = keras.Input(backbone.model.input_shape[1:], name="inputs")
        given = backbone.model(inputs)
        outputs = head.attach({"map" if len(given.shape) == 4 else "pooled": given})
    elif "text" in backbone.model.input:
        inputs, outputs = _build_strings(backbone, head, pairs)
    else:
        inputs, outputs = _build_text(backbone, head, windows, words)
    fits = head.n_outputs in (None, outputs.shape[-1])  # vectors are as wide as they are
    if not fits or len(outputs.shape) != (3 if words else 2):
        raise ConfigError(
            f"The head gives outputs of shape {tuple(outputs.shape)}; "
            f"the task {head.task!r} needs {(None, *([None] if words else []), head.n_outputs)}."
        )
    return keras.Model(inputs, outputs, name="tlkit_model")


def _build_text(backbone: Backbone, head: Head, windows: bool, words: bool) -> tuple[Any, Any]:
    shape = (None, None) if windows else (None,)
    # The mask is there also for a backbone that does not look at it: the head's pooling does.
    names = dict.fromkeys([*backbone.model.input, "padding_mask"])
    inputs = {name: keras.Input(shape, dtype="int32", name=name) for name in names}
    single = dict(inputs)
    if windows:
        single = {name: JoinWindows(name=f"{name}_joined")(given) for name, given in inputs.items()}
    features = dict(backbone.model({name: single[name] for name in backbone.model.input}))
    features["mask"] = single["padding_mask"]
    if words:
        inputs["word_starts"] = keras.Input((None,), dtype="int32", name="word_starts")
        features["word_starts"] = inputs["word_starts"]
    outputs = head.attach(features)
    if windows:
        outputs = MeanOverWindows(name="windows_mean")([outputs, inputs["padding_mask"]])
    return inputs, outputs


def _build_strings(backbone: Backbone, head: Head, pairs: bool) -> tuple[Any, Any]:
    names = ("text", "text_b") if pairs else ("text",)
    inputs = {name: keras.Input((), dtype="string", name=name) for name in names}
    given = [dict(backbone.model({"text": text})) for text in inputs.values()]
    if not pairs:
        return inputs, head.attach(given[0])
    # Two vectors, what differs, and what is alike: Reimers and Gurevych, arXiv:1908.10084, and Mou et al.,
    # arXiv:1512.08422. Such a backbone reads one text at a time.
    first, second = (pool(features, "cls" if "pooled" in features else "mean") for features in given)
    apart = keras.ops.abs(first - second)
    joined = keras.layers.Concatenate(name="pair_vectors")([first, second, apart, first * second])
    return inputs, head.attach({"pooled": joined})


def stored_bytes(model: keras.Model) -> int:
    """How much room the variables of a model take in a file, rounded up."""
    sizes = [int(math.prod(each.shape) * tf.as_dtype(each.dtype).size) for each in model.variables]
    return sum(sizes) + _HDF5_BYTES * len(sizes)


@keras.saving.register_keras_serializable("tlkit")
class JoinWindows(keras.layers.Layer):
    """Windows as examples: (N, windows, T) to (N × windows, T). Keras's Reshape keeps the first axis."""

    def call(self, inputs: Any) -> Any:
        return keras.ops.reshape(inputs, (-1, keras.ops.shape(inputs)[-1]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None, input_shape[-1])


@keras.saving.register_keras_serializable("tlkit")
class MeanOverWindows(keras.layers.Layer):
    """Outputs (N × windows, n) and mask (N, windows, T) to the means over windows with a token, (N, n)."""

    def call(self, inputs: Any) -> Any:
        outputs, mask = inputs
        there = keras.ops.cast(keras.ops.max(mask, axis=-1, keepdims=True), outputs.dtype)
        apart = keras.ops.reshape(outputs, (-1, keras.ops.shape(mask)[1], outputs.shape[-1]))
        return keras.ops.sum(apart * there, axis=1) / keras.ops.maximum(keras.ops.sum(there, axis=1), 1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None, input_shape[0][-1])
