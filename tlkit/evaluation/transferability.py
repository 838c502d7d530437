"""How well the features of a frozen backbone suit labels, before anything is trained.

Both measures look at features (n, d) of n examples, and at targets as in `Examples`: int (n,) of `classify`,
0 and 1 (n, labels) of `multilabel`, numbers (n,) or (n, k) of `regress`. A target that is the same for all
examples says nothing and is left out.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from sklearn.metrics import f1_score, r2_score
from sklearn.neighbors import NearestNeighbors

from tlkit.errors import DataError

Rankable = Literal["classify", "multilabel", "regress"]

NEIGHBOURS = 5
_MOST_UPDATES = 100
_TOLERANCE = 1e-4  # of α/β, relative; the evidence is flat there, so its own error is far smaller
_RANGE = 1e12  # how far α/β may go from the largest squared singular value
_NEARER_FIRST = 1e-3  # what a vote loses with each rank, so that the nearer neighbour decides a tie


def log_maximum_evidence(features: np.ndarray, targets: np.ndarray, objective: Rankable) -> float:
    """LogME: the logarithm of the maximum evidence per example, mean over the targets; higher is better.

    A linear model explains each target (of classes, 1 for those of the class and 0 for the others) with
    weights that are drawn from N(0, 1/α) and noise from N(0, 1/β); α and β are those that make the targets
    most likely, found by fixed-point updates. Numbers are standardised first, so that their unit does not
    matter. Figures compare backbones on the same examples; between data sets they mean nothing.

    Source: You et al., LogME: Practical Assessment of Pre-trained Models for Transfer Learning, ICML 2021,
    arXiv:2102.11005; the updates on singular values are those of its extension, arXiv:2110.10545.

    Raises:
        DataError: Values that are not finite, or targets that are all the same.
    """
    features, columns = _checked(features, targets, objective)
    if objective == "regress":
        columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return float(np.mean(_log_evidences(features, columns)))


def nearest_neighbour_score(
    features: np.ndarray, targets: np.ndarray, objective: Rankable, neighbours: int = NEIGHBOURS
) -> float:
    """How well the nearest other examples (by cosine) tell an example's target; higher is better.

    Leave-one-out: of `classify` the accuracy of the majority, of `multilabel` the macro F1 of the labels that
    more than half of the neighbours have, of `regress` R² of their mean.

    Raises:
        DataError: As `log_maximum_evidence`, and where there are no more examples than neighbours.
    """
    features, columns = _checked(features, targets, objective)
    if len(features) <= neighbours:
        raise DataError(f"{neighbours} neighbours need more examples than {len(features)}.")
    index = NearestNeighbors(n_neighbors=neighbours, metric="cosine", algorithm="brute").fit(features)
    nearest = columns[index.kneighbors(return_distance=False)]  # (n, neighbours, columns), without itself
    if objective == "classify":
        votes = np.tensordot(nearest, 1 - _NEARER_FIRST * np.arange(neighbours), axes=(1, 0))
        return float(np.mean(votes.argmax(axis=1) == columns.argmax(axis=1)))
    if objective == "multilabel":
        return float(f1_score(columns, nearest.mean(axis=1) > 0.5, average="macro", zero_division=0.0))
    return float(r2_score(columns, nearest.mean(axis=1)))


def _checked(features: np.ndarray, targets: np.ndarray, objective: Rankable) -> tuple[Any, Any]:
    """Features and target columns as float64, (n, d) and (n, columns)."""
    features = np.asarray(features, np.float64)
    if objective == "classify":
        columns: Any = (np.unique(targets) == np.asarray(targets)[:, None]).astype(np.float64)
    else:
        columns = np.asarray(targets, np.float64).reshape(len(targets), -1)
    if len(features) != len(columns) or features.ndim != 2:
        raise DataError(f"Features {features.shape} do not belong to {len(columns)} targets.")
    if not (np.isfinite(features).all() and np.isfinite(columns).all()):
        raise DataError("Features or targets hold values that are not finite (NaN or infinity).")
    columns = columns[:, np.ptp(columns, axis=0) > 0]
    if not columns.shape[1]:
        raise DataError("The targets of all examples are the same: there is nothing to tell apart.")
    return features, columns


def _log_evidences(features: Any, columns: Any) -> Any:
    """The logarithm of the maximum evidence per example, for every column (n, K) by itself: (K,).

    All of it depends on the singular values s and on the columns in the singular vectors' directions alone.
    With t = α/β, the best β is known for every t, which leaves one number to find.
    """
    count = len(features)
    vectors, values, _ = np.linalg.svd(features, full_matrices=False)
    real = values > values.max(initial=0.0) * max(features.shape) * np.finfo(np.float64).eps
    squared = values[real, None] ** 2  # (k, 1)
    inside = (vectors[:, real].T @ columns) ** 2  # (k, K)
    outside = np.maximum((columns**2).sum(axis=0) - inside.sum(axis=0), 0.0)  # what no weights can explain
    ratio = _fixed_point(squared, inside, outside, count)
    shrinkage = ratio / (squared + ratio)
    # β‖y − Fm‖² + αmᵀm, over β, at the mean m of the weights
    misfit = outside + (inside * shrinkage).sum(axis=0)
    return (np.log(shrinkage).sum(axis=0) / count + np.log(count / misfit) - 1 - math.log(2 * math.pi)) / 2


def _fixed_point(squared: Any, inside: Any, outside: Any, count: int) -> Any:
    """α/β (K,) where the updates α = γ / mᵀm and β = (n − γ) / ‖y − Fm‖² no longer change it."""
    if not len(squared):
        return np.ones(inside.shape[1])  # no feature says anything: any α will do
    largest = squared.max()
    ratio = np.full(inside.shape[1], squared.mean())
    for _ in range(_MOST_UPDATES):
        shrinkage = ratio / (squared + ratio)
        effective = (1 - shrinkage).sum(axis=0)  # γ, the number of well-determined weights
        left = count - len(squared) + shrinkage.sum(axis=0)  # n − γ, without cancellation
        weights = (inside * squared / (squared + ratio) ** 2).sum(axis=0)
        residual = outside + (inside * shrinkage**2).sum(axis=0)
        with np.errstate(divide="ignore"):  # weights of 0: the features explain nothing of this column
            updated = effective * residual / (left * weights)
        updated = np.clip(updated, largest / _RANGE, largest * _RANGE)
        done = np.all(np.abs(updated - ratio) <= _TOLERANCE * ratio)
        ratio = updated
        if done:
            break
    return ratio
