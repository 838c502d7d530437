"""From what a model gives (logits or values) to what people read."""

from __future__ import annotations

from typing import Any

import keras

from tlkit.config import Task


def to_scores(task: Task, outputs: Any) -> Any:
    """Probabilities from logits; values of a regression stay as they are.

    Args:
        task: `classify` (softmax over classes), `multilabel` (sigmoid per label) or `regress`.
        outputs: Float array or tensor (N, classes) of logits, or (N, targets) of values.

    Returns:
        A tensor of the same shape.
    """
    if task == "classify":
        return keras.ops.softmax(outputs, axis=-1)
    if task == "multilabel":
        return keras.ops.sigmoid(outputs)
    return keras.ops.convert_to_tensor(outputs)
