"""Focal losses and losses with a weight for each class, on logits.

Keras's focal losses clip probabilities at 1e-7: an example that is more wrong than that has no gradient, and
it is those that the loss is for. Here everything is computed from logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


class CategoricalFocal(keras.losses.Loss):
    """`−Σ y (1 − p)^γ log p` over the classes (Lin et al., arXiv:1708.02002), for each row of logits.

    Args:
        gamma: The focusing parameter; 0 is cross-entropy.
        label_smoothing: Share of each label that is spread over all classes.
    """

    def __init__(self, gamma: float, label_smoothing: float = 0.0) -> None:
        super().__init__(name="categorical_focal")
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """y_true: probabilities, of the shape of the logits `y_pred` (…, classes)."""
        y_true = keras.ops.cast(y_true, y_pred.dtype)
        y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / y_pred.shape[-1]
        logarithms = keras.ops.log_softmax(y_pred, axis=-1)
        # Above zero, where a power below 1 has no slope.
        rest = keras.ops.maximum(1 - keras.ops.exp(logarithms), keras.config.epsilon())
        return -keras.ops.sum(y_true * keras.ops.power(rest, self.gamma) * logarithms, axis=-1)


class BinaryFocal(keras.losses.Loss):
    """`−w α y (1 − p)^γ log p − (1 − α) (1 − y) p^γ log(1 − p)`, the mean over the labels of an example.

    Args:
        gamma: The focusing parameter; 0 is cross-entropy.
        alpha: The weight of labels that are there; those that are not have 1 − α. None: 1 for both.
        label_smoothing: Share of each label that becomes ½.
        weights: `w`, of each label where it is there.
    """

    def __init__(
        self,
        gamma: float,
        alpha: float | None = None,
        label_smoothing: float = 0.0,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(name="binary_focal")
        self.gamma = gamma
        self.present, self.absent = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        self.label_smoothing = label_smoothing
        self.weights = weights

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """y_true: 0, 1 or between, of the shape of the logits `y_pred` (…, labels)."""
        y_true = keras.ops.cast(y_true, y_pred.dtype)
        y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / 2
        there, not_there = keras.ops.log_sigmoid(y_pred), keras.ops.log_sigmoid(-y_pred)
        present = self.present * y_true * keras.ops.exp(self.gamma * not_there) * there
        if self.weights is not None:
            present = present * keras.ops.convert_to_tensor(self.weights, y_pred.dtype)
        absent = self.absent * (1 - y_true) * keras.ops.exp(self.gamma * there) * not_there
        return -keras.ops.mean(present + absent, axis=-1)
