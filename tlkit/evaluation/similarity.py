"""How well vectors say which texts are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats

from tlkit.errors import DataError

Metrics = tuple[dict[str, Any], dict[str, str]]

_ROWS = 1024  # of the cosines of all first with all second texts, at once
_TIE = 1e-5  # cosines of equal texts differ by as much, because they were padded differently


def measure_vectors(targets: np.ndarray, vectors: np.ndarray) -> Metrics:
    """Of pairs with scores `spearman` and `pearson` of cosine and score, over the pairs that have one.

    Where no pair has a score: `accuracy_at_1` and `mrr` (mean reciprocal rank) of the second text among the
    second texts of all pairs, by their cosine with the first. Arguments as in `compute_metrics`.
    """
    pairs = _unit_pairs(vectors)
    scores = np.asarray(targets, np.float64).reshape(-1)
    if len(scores) == 2 * len(pairs):
        scores = scores[::2]
    if len(scores) != len(pairs):
        raise DataError(f"{len(pairs)} pairs of vectors need as many scores, received {len(scores)}.")
    real = ~np.isnan(scores)
    if not real.any():
        return _retrieval(pairs), {}
    return _correlation(scores[real], cosines(pairs[real]))


def cosines(vectors: np.ndarray) -> np.ndarray:
    """The cosine of each pair, float64 (N,); vectors are (2N, d), pairs row after row, or (N, 2, d)."""
    pairs = _unit_pairs(vectors)
    alike: np.ndarray = (pairs[:, 0] * pairs[:, 1]).sum(axis=1)
    return alike


def _unit_pairs(vectors: np.ndarray) -> np.ndarray:
    """As float64 (N, 2, d), of length 1; a vector of length 0 stays."""
    pairs = np.asarray(vectors, np.float64).reshape(-1, 2, np.shape(vectors)[-1])
    lengths = np.linalg.norm(pairs, axis=-1, keepdims=True)
    return pairs / np.where(lengths > 0, lengths, 1)


def _correlation(scores: np.ndarray, alike: np.ndarray) -> Metrics:
    names = ("spearman", "pearson")
    if np.ptp(scores) == 0:
        return {}, dict.fromkeys(names, "all scores of this split are the same")
    if np.ptp(alike) == 0:
        return {}, dict.fromkeys(names, "all cosines are the same")
    return {
        "spearman": float(scipy.stats.spearmanr(scores, alike).statistic),
        "pearson": float(scipy.stats.pearsonr(scores, alike).statistic),
    }, {}


def _retrieval(pairs: np.ndarray) -> dict[str, float]:
    first, second = pairs[:, 0], pairs[:, 1]
    right = (first * second).sum(axis=1)
    ranks = [
        1 + (first[rows] @ second.T > right[rows, None] + _TIE).sum(axis=1)
        for rows in (slice(start, start + _ROWS) for start in range(0, len(pairs), _ROWS))
    ]
    rank = np.concatenate(ranks)
    return {"accuracy_at_1": float(np.mean(rank == 1)), "mrr": float(np.mean(1 / rank))}
