"""Losses of `embed`: vectors of length 1, (2N, d), in which each two rows are a pair."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tlkit.config import HeadConfig
from tlkit.errors import ConfigError
from tlkit.heads.losses import check_loss

SCALE = 20.0
"""Cosines are from −1 to 1; times this they are logits that a softmax can tell apart."""


def make_pair_loss(options: HeadConfig, scores: Any = None) -> keras.losses.Loss:
    """The loss that `options` name.

    Args:
        options: `auto` is `cosent`, or `ranking` where no pair has a score.
        scores: Those of the training pairs, NaN or None where one has none.

    Raises:
        ConfigError: The loss is not for `embed`, or needs scores that are (not) there.
    """
    check_loss(options, "embed")
    known = np.asarray([] if scores is None else scores, "float64").reshape(-1)
    missing = int(np.isnan(known).sum())
    unscored = missing > 0 and missing == len(known)
    low, high = (np.nanmin(known), np.nanmax(known)) if len(known) and not unscored else (0.0, 1.0)
    if options.loss == "ranking" or (options.loss == "auto" and unscored):
        if len(known) and not unscored and low < high:
            raise ConfigError(
                "head.loss: 'ranking' takes both texts of every pair for alike, but these pairs have scores "
                f"from {low:g} to {high:g}. Use cosent or cosine, or keep only the pairs that are alike."
            )
        return Ranking(name="ranking")
    if unscored or (options.loss == "cosine" and missing):
        raise ConfigError(
            f"head.loss: {options.loss!r} needs scores, but {missing} of {len(known)} pairs have none. "
            f"{'Use ranking.' if unscored else 'Use cosent, which leaves them out.'}"
        )
    if options.loss == "cosine":
        return Cosine(float(low), float(high) if high > low else float(low) + 1.0)
    return CoSent(name="cosent")


class CoSent(keras.losses.Loss):
    """A pair with the higher score should have the higher cosine (Su, CoSENT, 2022).

    `log(1 + Σ exp(20 · (cosine_j − cosine_i)))` over all pairs of pairs of the batch whose scores are in the
    order i above j. It has one value for the batch, which every row gets.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        scores, cosines = _scores(y_true), SCALE * _cosines(y_pred)
        above = scores[:, None] > scores[None, :]
        differences = cosines[None, :] - cosines[:, None]
        wrong = keras.ops.logsumexp(keras.ops.where(above, differences, -1e9))
        return keras.ops.broadcast_to(keras.ops.softplus(wrong), keras.ops.shape(y_pred)[:1])


class Cosine(keras.losses.Loss):
    """Squared error between the cosine and the score, where `low` to `high` became 0 to 1."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__(name="cosine")
        self.low = low
        self.high = high

    def call(self, y_true: Any, y_pred: Any) -> Any:
        wanted = (_scores(y_true) - self.low) / (self.high - self.low)
        return keras.ops.repeat(keras.ops.square(_cosines(y_pred) - wanted), 2)


class Ranking(keras.losses.Loss):
    """A text's partner among the partners of all pairs of the batch, both ways round.

    Cross-entropy over cosines times 20 (multiple negatives; Henderson et al., arXiv:1705.00652). The value of
    a row is that of finding its partner.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        first, second = _sides(y_pred)
        logits = SCALE * keras.ops.matmul(first, keras.ops.transpose(second))
        right = SCALE * _cosines(y_pred)
        there = keras.ops.logsumexp(logits, axis=1) - right
        back = keras.ops.logsumexp(logits, axis=0) - right
        return keras.ops.reshape(keras.ops.stack([there, back], axis=1), (-1,))


def _sides(vectors: Any) -> tuple[Any, Any]:
    pairs = keras.ops.reshape(vectors, (-1, 2, vectors.shape[-1]))
    return pairs[:, 0], pairs[:, 1]


def _cosines(vectors: Any) -> Any:
    first, second = _sides(vectors)
    return keras.ops.sum(first * second, axis=-1)


def _scores(y_true: Any) -> Any:
    return keras.ops.reshape(y_true, (-1, 2))[:, 0]
