"""From what a model gives (logits or values) to what people read."""

from __future__ import annotations

from typing import Any

import keras

from tlkit.config.head import Objective


def to_scores(objective: Objective, outputs: Any) -> Any:
    """Probabilities from logits; values of a regression and vectors stay as they are.

    Args:
        objective: `classify` (softmax over classes), `multilabel` (sigmoid per label), `tokens` (softmax over
            the tags of each word), `regress` or `embed`.
        outputs: Float array or tensor: logits (N, classes) or (N, W, tags), values (N, targets), or vectors.

    Returns:
        A tensor of the same shape.
    """
    if objective in ("classify", "tokens"):
        return keras.ops.softmax(outputs, axis=-1)
    if objective == "multilabel":
        return keras.ops.sigmoid(outputs)
    return keras.ops.convert_to_tensor(outputs)
