"""Losses on logits and on values, chosen by the objective unless named; those of vectors are apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tlkit.config import HeadConfig
from tlkit.config.head import Objective
from tlkit.errors import ConfigError
from tlkit.heads.focal import BinaryFocal, CategoricalFocal

ALLOWED = {
    "classify": ("auto", "cross_entropy", "focal"),
    "multilabel": ("auto", "cross_entropy", "focal"),
    "regress": ("auto", "mse", "mae", "huber"),
    "tokens": ("auto", "cross_entropy", "focal"),
    "embed": ("auto", "cosent", "cosine", "ranking"),
}


class OneHotLoss(keras.losses.Loss):
    """A categorical loss that takes class indices (N,) int32 instead of one-hot rows, and shares of the
    classes, (N, classes), as they are."""

    def __init__(self, loss: keras.losses.Loss, n_classes: int) -> None:
        super().__init__(name=loss.name)
        self.loss = loss
        self.n_classes = n_classes

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if len(y_true.shape) == 2 and y_true.shape[-1] == self.n_classes:
            return self.loss.call(y_true, y_pred)
        indices = keras.ops.reshape(keras.ops.cast(y_true, "int32"), (-1,))
        return self.loss.call(keras.ops.one_hot(indices, self.n_classes), y_pred)


class WordLoss(keras.losses.Loss):
    """A categorical loss over tags, int (N, W); no word is where a tag is below 0. `weights` are of the tags.

    It has a value for each example, (N,): the sum over its words, divided by how many words an example of the
    global batch has on average. So the mean over the examples of all replicas, which is what a training step
    takes, is the mean over words, however these fall on examples and replicas.
    """

    def __init__(self, loss: keras.losses.Loss, n_tags: int, weights: Sequence[float] | None = None) -> None:
        super().__init__(name=loss.name)
        self.loss = loss
        self.n_tags = n_tags
        self.weights = weights
        self._scale: Any = None

    def call(self, y_true: Any, y_pred: Any) -> Any:
        tags = keras.ops.cast(y_true, "int32")
        real = keras.ops.cast(tags >= 0, y_pred.dtype)
        each = self.loss.call(keras.ops.one_hot(keras.ops.maximum(tags, 0), self.n_tags), y_pred)
        if self.weights is not None:
            weights = keras.ops.convert_to_tensor(self.weights, y_pred.dtype)
            each = each * keras.ops.take(weights, keras.ops.maximum(tags, 0))
        scale = self.scale(y_true) if self._scale is None else self._scale
        return keras.ops.sum(each * real, axis=1) * keras.ops.cast(scale, real.dtype)

    def scale(self, y_true: Any) -> Any:
        """Examples for each word of the global batch: one number, float32. Replicas meet here."""
        real = keras.ops.cast(keras.ops.cast(y_true, "int32") >= 0, "float32")
        words = keras.ops.sum(real)
        examples = keras.ops.cast(keras.ops.shape(real)[0], real.dtype)
        # None outside of replicas, where Keras only tries the shapes.
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            words, examples = replica.all_reduce(tf.distribute.ReduceOp.SUM, [words, examples])
        return examples / keras.ops.maximum(words, 1)

    @contextmanager
    def scaled(self, scale: Any) -> Iterator[None]:
        """While what it sees are parts of a batch: the `scale` of the whole, which it cannot know."""
        self._scale = scale
        try:
            yield
        finally:
            self._scale = None


class StandardizedLoss(keras.losses.Loss):
    """A regression loss in standard deviations of the target; the model answers in the target's unit."""

    def __init__(self, loss: keras.losses.Loss, deviation: Any) -> None:
        super().__init__(name=loss.name)
        self.loss = loss
        self.deviation = deviation

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = keras.ops.reshape(keras.ops.cast(y_true, y_pred.dtype), keras.ops.shape(y_pred))
        return self.loss.call(y_true / self.deviation, y_pred / self.deviation)


def make_loss(
    options: HeadConfig,
    objective: Objective,
    n_outputs: int,
    deviation: Any = 1.0,
    weights: Sequence[float] | None = None,
) -> keras.losses.Loss:
    """The loss of an objective other than `embed`.

    `weights` are those of the tags of `tokens`, or of the labels of `multilabel` where they are there.

    Raises:
        ConfigError: The named loss does not fit.
    """
    check_loss(options, objective)
    smoothing = options.label_smoothing
    focal = options.loss == "focal"
    if objective in ("classify", "tokens"):
        loss = (
            CategoricalFocal(options.focal_gamma, smoothing)
            if focal
            else keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        )
        return OneHotLoss(loss, n_outputs) if objective == "classify" else WordLoss(loss, n_outputs, weights)
    if objective == "multilabel":
        if focal or weights is not None:
            gamma = options.focal_gamma if focal else 0.0
            return BinaryFocal(gamma, options.focal_alpha, smoothing, weights)
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    regressions = {
        "auto": keras.losses.MeanSquaredError(),
        "mse": keras.losses.MeanSquaredError(),
        "mae": keras.losses.MeanAbsoluteError(),
        "huber": keras.losses.Huber(delta=options.huber_delta),
    }
    return StandardizedLoss(regressions[options.loss], deviation)


def check_loss(options: HeadConfig, objective: Objective) -> None:
    """Raises ConfigError where the named loss, or smoothing, is not for this objective."""
    allowed = ALLOWED[objective]
    if options.loss not in allowed:
        raise ConfigError(
            f"head.loss: {options.loss!r} does not fit task {objective!r}. Allowed: {', '.join(allowed)}."
        )
    if options.focal_alpha is not None and (objective != "multilabel" or options.loss != "focal"):
        raise ConfigError(
            "head.focal_alpha weighs labels that are there against those that are not: it is for task "
            "'multilabel' with loss: focal. A weight for each class is head.class_weight."
        )
    if objective in ("regress", "embed") and options.label_smoothing:
        what = "a regression" if objective == "regress" else "task 'embed'"
        raise ConfigError(f"head.label_smoothing smooths labels; {what} has none. Use label_smoothing: 0.")
