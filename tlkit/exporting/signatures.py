"""The graph that an exported model consists of: preprocessing, model, and answers with names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tlkit.config import Task
from tlkit.preprocessing import ImagePreprocessing

TOP_K = 5
LABEL_THRESHOLD = 0.5
LABEL_SEPARATOR = "|"

IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")
IMAGE = tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")


def make_module(
    model: keras.Model,
    preprocessing: ImagePreprocessing,
    *,
    task: Task,
    classes: Sequence[str],
    to_scores: Callable[[Any], Any],
    assets: Sequence[Path],
) -> tuple[tf.Module, dict[str, Any]]:
    """The module to save, and its signatures.

    `serving_default` takes `image_bytes`, strings (N,), the bytes of one image file each; `tensor` takes
    `image`, uint8 (N, h, w, 3), RGB. Both give, all as float32 or string:

    - classify: `scores` (N, classes), `label` (N,), `top_k_labels` and `top_k_scores` (N, min(5, classes));
    - multilabel: the same; `label` joins the names whose score is above 0.5 with `|`;
    - regress: `value` (N,), or (N, k) where there are several.
    """

    def answer(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = to_scores(model(_never_empty(inputs), training=False))[: tf.shape(inputs)[0]]
        return name_answers(tf.cast(scores, tf.float32), task, classes)

    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(preprocessing.from_raw(image_bytes))

    def serve_tensor(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(preprocessing.encode(preprocessing.resize_batch(image)))

    module = tf.Module()
    # The bare variables: the Keras object would be saved with its training state and its own functions.
    module.model_variables = [variable.value for variable in model.variables]
    module.asset_files = [tf.saved_model.Asset(str(path)) for path in assets]
    module.serve_bytes = tf.function(serve_bytes, input_signature=[IMAGE_BYTES])
    module.serve_tensor = tf.function(serve_tensor, input_signature=[IMAGE])
    signatures = {
        "serving_default": module.serve_bytes.get_concrete_function(),
        "tensor": module.serve_tensor.get_concrete_function(),
    }
    return module, signatures


def name_answers(scores: tf.Tensor, task: Task, classes: Sequence[str]) -> dict[str, tf.Tensor]:
    """The named outputs for float32 scores (N, classes), or values (N,), (N, 1) or (N, k)."""
    if task == "regress":
        single = scores.shape.rank == 2 and scores.shape[1] == 1
        return {"value": tf.squeeze(scores, axis=1) if single else scores}
    names = tf.constant(list(classes))
    top_scores, top_indices = tf.math.top_k(scores, k=min(TOP_K, len(classes)))
    label = tf.gather(names, tf.argmax(scores, axis=1)) if task == "classify" else _join_names(scores, names)
    return {
        "scores": scores,
        "label": label,
        "top_k_labels": tf.gather(names, top_indices),
        "top_k_scores": top_scores,
    }


def _never_empty(inputs: tf.Tensor) -> tf.Tensor:
    """The inputs (N, H, W, 3), with one example of zeros where there are none.

    oneDNN's convolution gives an empty batch the shape of its input instead of its output, and what follows
    fails (tried: TensorFlow 2.21.0; with TF_ENABLE_ONEDNN_OPTS=0 it does not).
    """
    missing = tf.cast(tf.equal(tf.shape(inputs)[0], 0), tf.int32)
    padded = tf.pad(inputs, [[0, missing], [0, 0], [0, 0], [0, 0]])
    return tf.ensure_shape(padded, [None, *inputs.shape[1:]])


def _join_names(scores: tf.Tensor, names: tf.Tensor) -> tf.Tensor:
    every = tf.broadcast_to(names, tf.shape(scores))
    chosen = tf.ragged.boolean_mask(every, scores > LABEL_THRESHOLD)
    return tf.strings.reduce_join(chosen, axis=1, separator=LABEL_SEPARATOR)
