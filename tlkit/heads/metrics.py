"""What is shown and logged while a head trains, and which of it tells the best epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tlkit.config.head import Objective

OUTSIDE = "O"
"""The tag of a word that is in no entity."""


def make_metrics(
    objective: Objective, classes: Sequence[str] | None = None, scored: bool = True
) -> list[keras.metrics.Metric]:
    """New metrics over logits, values or vectors.

    Args:
        objective: What the head learns.
        classes: Names of the tags, for `tokens`.
        scored: Whether the pairs of `embed` have scores.
    """
    if objective == "classify":
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    if objective == "multilabel":
        # The models give logits: a probability above 0.5 is a logit above 0.
        return [keras.metrics.BinaryAccuracy(name="binary_accuracy", threshold=0.0)]
    if objective == "tokens":
        outside = _outside(classes)
        word_f1 = [] if outside is None else [WordF1(outside)]
        return [WordAccuracy(0 if outside is None else outside), *word_f1]
    if objective == "embed":
        return [PairCorrelation()] if scored else [PartnerAccuracy()]
    return [keras.metrics.MeanAbsoluteError(name="mae")]


def find_monitor(
    objective: Objective, classes: Sequence[str] | None = None, scored: bool = True
) -> tuple[str, str]:
    """The logged value that tells which epoch is best, and whether `max` or `min` of it is.

    Where there is a choice it is no loss: that rises on examples that are confidently wrong while what people
    want still improves. Of tags it is the F1 over words, because nine of ten words are often outside of any
    entity and make every accuracy look the same. Without scores, how many partners are found depends on the
    few others of the batch, and soon is all of them: the loss goes on telling.
    """
    if objective == "tokens" and _outside(classes) is not None:
        return "val_word_f1", "max"
    if objective in ("classify", "tokens"):
        return "val_accuracy", "max"
    if objective == "embed" and scored:
        return "val_pearson", "max"
    return "val_loss", "min"


def predict_tags(outputs: Any, outside: int) -> Any:
    """The best tag of each word, int32 (N, W), from logits or probabilities (N, W, tags).

    Where all tags are equal (a word that was cut off: nothing is said about it) it is `outside`.
    """
    best = keras.ops.cast(keras.ops.argmax(outputs, axis=-1), "int32")
    said = keras.ops.max(outputs, axis=-1) > keras.ops.min(outputs, axis=-1)
    return keras.ops.where(said, best, outside)


class WordAccuracy(keras.metrics.Mean):
    """The share of words whose best tag is right. Tags below 0 are no words."""

    def __init__(self, outside: int = 0, name: str = "accuracy", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.outside = outside

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        tags = keras.ops.cast(y_true, "int32")
        right = keras.ops.cast(predict_tags(y_pred, self.outside) == tags, "float32")
        super().update_state(right, sample_weight=keras.ops.cast(tags >= 0, "float32"))


class WordF1(keras.metrics.Metric):
    """F1 over the words whose true or predicted tag is not `O`.

    It ranks epochs nearly as the F1 of whole entities does, and needs no decoding of entities in the graph.
    """

    def __init__(self, outside: int, name: str = "word_f1", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.outside = outside
        self.right = self.add_variable((), "zeros", name="right")
        self.both = self.add_variable((), "zeros", name="both")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        tags = keras.ops.cast(y_true, "int32")
        predicted = predict_tags(y_pred, self.outside)
        real = tags >= 0
        wanted = keras.ops.logical_and(real, tags != self.outside)
        given = keras.ops.logical_and(real, predicted != self.outside)
        right = keras.ops.logical_and(wanted, predicted == tags)
        self.right.assign_add(_count(right))
        self.both.assign_add(_count(wanted) + _count(given))

    def result(self) -> Any:
        return 2 * self.right / keras.ops.maximum(self.both, 1)


class PairCorrelation(keras.metrics.Metric):
    """Pearson's correlation of cosine and score over all pairs; those without a score are left out."""

    def __init__(self, name: str = "pearson", **options: Any) -> None:
        super().__init__(name=name, **options)
        # Sums of 1, x, y, x², y², xy; in float32 their differences would lose what they tell.
        self.sums = self.add_variable((6,), "zeros", dtype="float64", name="sums")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pairs = keras.ops.reshape(y_pred, (-1, 2, y_pred.shape[-1]))
        cosines = keras.ops.cast(keras.ops.sum(pairs[:, 0] * pairs[:, 1], axis=-1), "float64")
        scores = keras.ops.cast(keras.ops.reshape(y_true, (-1, 2))[:, 0], "float64")
        real = keras.ops.logical_not(keras.ops.isnan(scores))
        x, y = keras.ops.where(real, cosines, 0), keras.ops.where(real, scores, 0)
        parts = [keras.ops.cast(real, "float64"), x, y, x * x, y * y, x * y]
        self.sums.assign_add(keras.ops.sum(keras.ops.stack(parts), axis=1))

    def result(self) -> Any:
        n, x, y, xx, yy, xy = keras.ops.unstack(keras.ops.convert_to_tensor(self.sums))
        spread = keras.ops.sqrt(keras.ops.maximum((n * xx - x * x) * (n * yy - y * y), 0))
        return keras.ops.cast(
            keras.ops.where(spread > 0, (n * xy - x * y) / keras.ops.maximum(spread, 1e-12), 0), "float32"
        )


class PartnerAccuracy(keras.metrics.Mean):
    """The share of first texts whose partner is the nearest among the second texts of the batch."""

    def __init__(self, name: str = "accuracy", **options: Any) -> None:
        super().__init__(name=name, **options)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pairs = keras.ops.reshape(y_pred, (-1, 2, y_pred.shape[-1]))
        cosines = keras.ops.matmul(pairs[:, 0], keras.ops.transpose(pairs[:, 1]))
        right = keras.ops.diagonal(cosines) >= keras.ops.max(cosines, axis=1)
        super().update_state(keras.ops.cast(right, "float32"))


def _outside(classes: Sequence[str] | None) -> int | None:
    return list(classes).index(OUTSIDE) if classes is not None and OUTSIDE in classes else None


def _count(flags: Any) -> Any:
    return keras.ops.sum(keras.ops.cast(flags, "float32"))
