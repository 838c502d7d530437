"""Weights of examples from weights of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tlkit.config.head import Objective
from tlkit.errors import ConfigError


def example_weights(
    spec: Literal["none", "balanced"] | Mapping[str, float],
    objective: Objective,
    targets: np.ndarray,
    classes: Sequence[str] | None,
) -> np.ndarray | None:
    """A weight for each training example.

    Args:
        spec: `none`, `balanced` (n / (classes × count)), or a weight for every class by name.
        objective: `classify`, also of pairs; the others take no class weights.
        targets: Class indices, int (N,).
        classes: Class names, in the order of the indices.

    Returns:
        float32 (N,), or None where every example weighs the same.

    Raises:
        ConfigError: There are no classes to weigh, or the table does not name every class.
    """
    if spec == "none":
        return None
    if objective != "classify" or classes is None:
        raise ConfigError(
            "head.class_weight is for task 'classify', and for 'pair' where it learns labels; "
            f"this one is {objective!r}. Use class_weight: none."
        )
    if spec == "balanced":
        counts = np.bincount(targets, minlength=len(classes))
        weights = len(targets) / (len(classes) * np.maximum(counts, 1))
    else:
        assert isinstance(spec, Mapping)
        if set(spec) != set(classes):
            raise ConfigError(
                f"head.class_weight needs a weight for each of {', '.join(classes)}; "
                f"received {', '.join(spec)}."
            )
        weights = np.array([spec[name] for name in classes])
    chosen: np.ndarray = weights[targets].astype("float32")
    return chosen
