"""Losses on logits and on values, chosen by the task unless named."""

from __future__ import annotations

from typing import Any

import keras

from tlkit.config import HeadConfig, Task
from tlkit.errors import ConfigError

ALLOWED = {
    "classify": ("auto", "cross_entropy", "focal"),
    "multilabel": ("auto", "cross_entropy", "focal"),
    "regress": ("auto", "mse", "mae", "huber"),
}


class OneHotLoss(keras.losses.Loss):
    """A categorical loss that takes class indices (N,) int32 instead of one-hot rows."""

    def __init__(self, loss: keras.losses.Loss, n_classes: int) -> None:
        super().__init__(name=loss.name)
        self.loss = loss
        self.n_classes = n_classes

    def call(self, y_true: Any, y_pred: Any) -> Any:
        indices = keras.ops.reshape(keras.ops.cast(y_true, "int32"), (-1,))
        return self.loss.call(keras.ops.one_hot(indices, self.n_classes), y_pred)


class StandardizedLoss(keras.losses.Loss):
    """A regression loss in standard deviations of the target; the model answers in the target's unit."""

    def __init__(self, loss: keras.losses.Loss, deviation: Any) -> None:
        super().__init__(name=loss.name)
        self.loss = loss
        self.deviation = deviation

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = keras.ops.reshape(keras.ops.cast(y_true, y_pred.dtype), keras.ops.shape(y_pred))
        return self.loss.call(y_true / self.deviation, y_pred / self.deviation)


def make_loss(options: HeadConfig, task: Task, n_outputs: int, deviation: Any = 1.0) -> keras.losses.Loss:
    """The loss of a task.

    Raises:
        ConfigError: The named loss does not fit the task.
    """
    if options.loss not in ALLOWED[task]:
        raise ConfigError(
            f"head.loss: {options.loss!r} does not fit task {task!r}. Allowed: {', '.join(ALLOWED[task])}."
        )
    if task == "regress" and options.label_smoothing:
        raise ConfigError(
            "head.label_smoothing smooths labels; a regression has none. Use label_smoothing: 0."
        )
    focal = options.loss == "focal"
    if task == "classify":
        smoothing = options.label_smoothing
        loss = (
            keras.losses.CategoricalFocalCrossentropy(
                alpha=1.0, gamma=options.focal_gamma, from_logits=True, label_smoothing=smoothing
            )
            if focal
            else keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        )
        return OneHotLoss(loss, n_outputs)
    if task == "multilabel":
        smoothing = options.label_smoothing
        if focal:
            return keras.losses.BinaryFocalCrossentropy(
                gamma=options.focal_gamma, from_logits=True, label_smoothing=smoothing
            )
        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    regressions = {
        "auto": keras.losses.MeanSquaredError(),
        "mse": keras.losses.MeanSquaredError(),
        "mae": keras.losses.MeanAbsoluteError(),
        "huber": keras.losses.Huber(delta=options.huber_delta),
    }
    return StandardizedLoss(regressions[options.loss], deviation)
