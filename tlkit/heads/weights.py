"""Weights of classes, and of examples by their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tlkit.config.head import Objective
from tlkit.errors import ConfigError

Spec = Literal["none", "balanced"] | Mapping[str, float]


def class_weights(
    spec: Spec, objective: Objective, targets: Any, classes: Sequence[str] | None
) -> np.ndarray | None:
    """A weight for each class.

    Args:
        spec: `none`, a weight for every class by name, or `balanced`: n / (classes × count) of examples or
            words; of labels, how many examples do not have one for each that has.
        objective: `classify`, `multilabel` or `tokens`.
        targets: Class indices, int (N,); of `multilabel` 0 and 1, (N, labels); of `tokens` a list of the tags
            of each text, below 0 where there is none.
        classes: Class names, in the order of the indices.

    Returns:
        float32 (classes,), or None where every class weighs the same.

    Raises:
        ConfigError: There are no classes to weigh, or the table does not name every class.
    """
    if spec == "none":
        return None
    if objective not in ("classify", "multilabel", "tokens") or classes is None:
        raise ConfigError(
            "head.class_weight is for tasks with classes (classify, multilabel, tokens, and pair where it "
            f"learns labels); this one is {objective!r}. Use class_weight: none."
        )
    if spec == "balanced":
        return _balance(objective, targets, len(classes)).astype("float32")
    assert isinstance(spec, Mapping)
    if set(spec) != set(classes):
        raise ConfigError(
            f"head.class_weight needs a weight for each of {', '.join(classes)}; received {', '.join(spec)}."
        )
    return np.array([spec[name] for name in classes], "float32")


def example_weights(
    spec: Spec, objective: Objective, targets: np.ndarray, classes: Sequence[str] | None
) -> np.ndarray | None:
    """A weight for each training example of `classify`: float32 (N,), or None where all weigh the same.

    Where an example has several labels or tags, they are weighed in the loss instead. The arguments and
    errors are those of `class_weights`.
    """
    weights = class_weights(spec, objective, targets, classes)
    if weights is None or objective != "classify":
        return None
    chosen: np.ndarray = weights[targets]
    return chosen


def _balance(objective: Objective, targets: Any, n_classes: int) -> np.ndarray:
    if objective == "multilabel":
        present = np.asarray(targets).sum(axis=0)
        ratio: np.ndarray = np.maximum(len(targets) - present, 1) / np.maximum(present, 1)
        return ratio
    indices = np.concatenate([np.ravel(each) for each in targets]) if objective == "tokens" else targets
    indices = np.asarray(indices, "int64")
    counts = np.bincount(indices[indices >= 0], minlength=n_classes)
    balanced: np.ndarray = counts.sum() / (n_classes * np.maximum(counts, 1))
    return balanced
