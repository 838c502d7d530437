"""Metrics against numbers counted by hand, and against scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import sklearn.metrics

from tlkit.errors import DataError, TrainingError
from tlkit.evaluation import compute_metrics, confusion_matrix

# Six examples of two classes: 3 of "ok" (2 right), 3 of "bad" (2 right); one of each is taken for the other.
TARGETS = np.array([0, 0, 0, 1, 1, 1])
BAD = np.array([0.1, 0.2, 0.6, 0.7, 0.9, 0.3])
SCORES = np.stack([1 - BAD, BAD], axis=1)


def test_a_binary_classifier_counted_by_hand() -> None:
    metrics = compute_metrics("classify", TARGETS, SCORES, ["ok", "bad"], loss=0.5)
    third = pytest.approx(2 / 3)
    assert metrics == {
        "accuracy": third,
        "precision_macro": third,
        "recall_macro": third,
        "f1_macro": third,
        "f1_micro": third,
        # Of the 9 pairs of one "bad" and one "ok", 8 are in the right order (0.3 against 0.6 is not).
        "auc": pytest.approx(8 / 9),
        "per_class": {
            "ok": {"precision": third, "recall": third, "f1": third, "support": 3},
            "bad": {"precision": third, "recall": third, "f1": third, "support": 3},
        },
        "loss": 0.5,
    }


def test_three_classes_with_unequal_errors_counted_by_hand() -> None:
    targets = np.array([0, 0, 1, 2])
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
    metrics = compute_metrics("classify", targets, scores, ["a", "b", "c"])
    assert metrics["accuracy"] == 0.75
    # a: precision 1, recall 1/2; b: precision 1/2, recall 1; c: 1 and 1.
    assert metrics["precision_macro"] == pytest.approx(2.5 / 3)
    assert metrics["recall_macro"] == pytest.approx(2.5 / 3)
    assert metrics["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert metrics["f1_micro"] == 0.75
    # a: of 4 pairs 3 right (0.2 lies below 0.3); b: 2 of 3 right (0.6 lies below 0.7); c: 3 of 3.
    assert metrics["auc"] == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)
    assert "loss" not in metrics
    assert "top5_accuracy" not in metrics


def test_top5_appears_above_five_classes() -> None:
    scores = np.tile(np.array([0.3, 0.25, 0.2, 0.1, 0.08, 0.07]), (3, 1))
    metrics = compute_metrics("classify", np.array([0, 4, 5]), scores, list("abcdef"))
    assert metrics["top5_accuracy"] == pytest.approx(2 / 3)
    assert metrics["accuracy"] == pytest.approx(1 / 3)


def test_auc_of_a_split_without_a_class_is_absent_with_the_reason() -> None:
    metrics = compute_metrics("classify", np.array([1, 1]), SCORES[3:5], ["ok", "bad"])
    assert "auc" not in metrics
    assert metrics["absent"] == {"auc": "this split has no example of 'ok'"}
    assert metrics["per_class"]["ok"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    json.dumps(metrics, allow_nan=False)


def test_multiclass_auc_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 7, 200)
    scores = random.random((200, 7)) + 0.5 * np.eye(7)[targets]
    scores /= scores.sum(axis=1, keepdims=True)
    metrics = compute_metrics("classify", targets, scores.astype(np.float32), list("abcdefg"))
    wanted = sklearn.metrics.roc_auc_score(targets, scores, multi_class="ovr", average="macro")
    assert metrics["auc"] == pytest.approx(wanted, abs=1e-6)
    top5 = sklearn.metrics.top_k_accuracy_score(targets, scores, k=5)
    assert metrics["top5_accuracy"] == pytest.approx(top5)


def test_multilabel_counted_by_hand() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    scores = np.array([[0.9, 0.2], [0.8, 0.5], [0.6, 0.7], [0.1, 0.1]])
    metrics = compute_metrics("multilabel", targets, scores, ["a", "b"])
    # 0.5 is not above the threshold. a: 2 right of 3 predicted, 2 found of 2; b: 1 of 1, 1 of 2.
    assert metrics["accuracy"] == 0.5
    assert metrics["precision_macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["recall_macro"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["f1_macro"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics["f1_micro"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert metrics["auc"] == 1.0
    assert metrics["per_class"]["b"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }


@pytest.mark.parametrize(
    ("column", "reason"),
    [([0, 0], "this split has no example of 'b'"), ([1, 1], "every example of this split has 'b'")],
)
def test_multilabel_auc_needs_both_kinds_of_every_label(column: list[int], reason: str) -> None:
    targets = np.stack([[0, 1], column], axis=1)
    metrics = compute_metrics("multilabel", targets, np.array([[0.1, 0.2], [0.9, 0.7]]), ["a", "b"])
    assert metrics["absent"]["auc"] == reason


def test_regression_counted_by_hand() -> None:
    metrics = compute_metrics("regress", np.array([1.0, 2.0, 3.0]), np.array([[1.0], [4.0], [3.0]]), ["n"])
    assert metrics == {
        "mae": pytest.approx(2 / 3),
        "rmse": pytest.approx(math.sqrt(4 / 3)),
        "r2": pytest.approx(1 - 4 / 2),
        "spearman": pytest.approx(0.5),
    }


def test_several_values_are_averaged_and_listed() -> None:
    targets = np.array([[1.0, 10.0], [2.0, 20.0]])
    metrics = compute_metrics("regress", targets, targets + np.array([0.0, 4.0]), ["x", "y"])
    assert metrics["mae"] == 2.0
    assert metrics["per_value"]["x"]["mae"] == 0.0
    assert metrics["per_value"]["y"]["mae"] == 4.0
    assert list(compute_metrics("regress", targets, targets, None)["per_value"]) == ["0", "1"]


def test_what_a_regression_cannot_say_is_absent_with_the_reason() -> None:
    constant = compute_metrics("regress", np.array([2.0, 2.0]), np.array([1.0, 3.0]), ["n"])
    assert constant["absent"] == dict.fromkeys(("r2", "spearman"), "all targets of this split are the same")
    flat = compute_metrics("regress", np.array([1.0, 3.0]), np.array([2.0, 2.0]), ["n"])
    assert flat["absent"] == {"spearman": "all predictions are the same"}
    assert flat["r2"] == 0.0
    json.dumps([constant, flat], allow_nan=False)


def test_scores_that_are_not_finite_and_empty_splits_are_errors() -> None:
    broken = SCORES.copy()
    broken[2] = np.nan
    with pytest.raises(TrainingError, match="not finite for 1 of 6 examples"):
        compute_metrics("classify", TARGETS, broken, ["ok", "bad"])
    with pytest.raises(DataError, match="no examples"):
        compute_metrics("classify", TARGETS[:0], SCORES[:0], ["ok", "bad"])


def test_a_loss_that_is_not_finite_stays_out_of_the_json() -> None:
    metrics = compute_metrics("classify", TARGETS, SCORES, ["ok", "bad"], loss=float("inf"))
    assert metrics["absent"] == {"loss": "it is not finite"}


def test_the_confusion_matrix_has_true_classes_in_rows() -> None:
    matrix = confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), ["a", "b", "c"])
    assert matrix.loc["a", "b"] == 1
    assert matrix.loc["b", "a"] == 0
    assert matrix.to_numpy().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (matrix.index.name, matrix.columns.name) == ("true", "predicted")
