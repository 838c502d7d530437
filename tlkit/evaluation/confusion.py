"""What a classifier takes for what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tlkit.errors import ConfigError


def confusion_matrix(targets: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Count the examples of each class (rows) by what they were taken for (columns).

    `targets` and `predicted` are class numbers (N,); every class has a row and a column, in the order of
    `classes`.

    Raises:
        ConfigError: There is not one class for each example.
    """
    if np.ndim(targets) != 1 or np.asarray(targets).dtype == object:
        raise ConfigError(
            "A confusion matrix needs one class for each example; several labels, tags of words and vectors "
            "have none."
        )
    n = len(classes)
    pairs = np.asarray(targets, np.int64) * n + np.asarray(predicted, np.int64)
    counts = np.bincount(pairs, minlength=n * n).reshape(n, n)
    names = list(classes)
    return pd.DataFrame(counts, index=pd.Index(names, name="true"), columns=pd.Index(names, name="predicted"))
