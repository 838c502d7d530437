"""Entities counted by hand, and vectors that are alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats

from tlkit.errors import ConfigError, DataError, TrainingError
from tlkit.evaluation import compute_metrics, confusion_matrix, cosines, find_entities

CLASSES = ("B-loc", "B-per", "E-loc", "I-loc", "I-per", "O", "S-per")


def numbers(tags: str) -> np.ndarray:
    return np.array([CLASSES.index(tag) for tag in tags.split()])


def measure(true: list[str], predicted: list[str]) -> dict:
    return compute_metrics("tokens", [numbers(x) for x in true], [numbers(x) for x in predicted], CLASSES)


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("", []),
        ("O O", []),
        ("B-per", [("per", 0, 1)]),
        ("O B-per I-per O", [("per", 1, 3)]),
        ("B-per B-per", [("per", 0, 1), ("per", 1, 2)]),
        ("B-per I-per B-per I-per", [("per", 0, 2), ("per", 2, 4)]),
        # An I- that nothing begins: begins one itself.
        ("O I-per I-per O", [("per", 1, 3)]),
        ("I-per", [("per", 0, 1)]),
        ("B-per I-loc", [("per", 0, 1), ("loc", 1, 2)]),
        ("B-per O I-per", [("per", 0, 1), ("per", 2, 3)]),
        ("I-per I-per B-per", [("per", 0, 2), ("per", 2, 3)]),
        ("B-loc I-loc E-loc", [("loc", 0, 3)]),
        ("B-loc E-loc I-loc", [("loc", 0, 2), ("loc", 2, 3)]),
        ("E-loc E-loc", [("loc", 0, 1), ("loc", 1, 2)]),
        ("S-per I-per", [("per", 0, 1), ("per", 1, 2)]),
        ("B-per S-per", [("per", 0, 1), ("per", 1, 2)]),
        ("B I O I-a-b", [("", 0, 2), ("a-b", 3, 4)]),
    ],
)
def test_entities_counted_by_hand(tags: str, entities: list[tuple[str, int, int]]) -> None:
    assert find_entities(tags.split()) == entities


def test_an_entity_is_right_only_as_a_whole() -> None:
    # per: right, and one of two words (wrong). loc: right, missed, and one where there is none.
    true = ["B-per I-per O B-loc", "B-per I-per O", "O B-loc O"]
    predicted = ["B-per I-per O B-loc", "B-per O O", "B-loc O O"]
    assert measure(true, predicted) == {
        "accuracy": pytest.approx(7 / 10),
        "precision": pytest.approx(2 / 4),
        "recall": pytest.approx(2 / 4),
        "entity_f1": pytest.approx(2 / 4),
        "per_class": {
            "loc": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
            "per": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        },
    }


def test_the_same_words_as_another_type_are_wrong_twice() -> None:
    metrics = measure(["B-per I-per O"], ["B-loc I-loc O"])
    assert (metrics["precision"], metrics["recall"], metrics["entity_f1"]) == (0.0, 0.0, 0.0)
    assert metrics["per_class"]["loc"]["support"] == 0
    assert metrics["accuracy"] == pytest.approx(1 / 3)


def test_an_entity_that_begins_with_i_equals_one_that_begins_with_b() -> None:
    metrics = measure(["O B-per I-per"], ["O I-per I-per"])
    assert metrics["entity_f1"] == 1.0
    assert metrics["accuracy"] == pytest.approx(2 / 3)


def test_two_entities_side_by_side_are_not_one() -> None:
    metrics = measure(["B-per B-per"], ["B-per I-per"])
    assert metrics["entity_f1"] == 0.0
    assert metrics["accuracy"] == 0.5


def test_unequal_precision_and_recall_counted_by_hand() -> None:
    metrics = measure(["B-per O B-per O B-per"], ["B-per O O O O"])
    assert metrics["precision"] == 1.0
    assert metrics["recall"] == pytest.approx(1 / 3)
    assert metrics["entity_f1"] == pytest.approx(1 / 2)


def test_entities_do_not_cross_sentences() -> None:
    assert measure(["B-per", "I-per"], ["B-per", "I-per"])["per_class"]["per"]["support"] == 2


def test_a_split_without_entities_counts_as_zero() -> None:
    metrics = measure(["O O"], ["O O"])
    assert metrics == {"accuracy": 1.0, "precision": 0.0, "recall": 0.0, "entity_f1": 0.0, "per_class": {}}


def test_padding_is_no_word_and_what_was_cut_off_is_outside() -> None:
    scores = np.eye(len(CLASSES))[[numbers("B-per I-per O B-per"), numbers("B-loc O O O")]]
    targets = [numbers("B-per I-per"), numbers("B-loc O O B-per O O")]
    metrics = compute_metrics("tokens", targets, scores, CLASSES)
    # Of the second sentence two words are beyond the scores: one is missed, one is rightly outside.
    assert metrics["accuracy"] == pytest.approx(7 / 8)
    assert metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["precision"] == 1.0
    equal = np.full((1, 2, len(CLASSES)), 1 / len(CLASSES))
    assert compute_metrics("tokens", [numbers("O B-per")], equal, CLASSES)["accuracy"] == 0.5


def test_tags_that_are_not_of_entities_have_their_accuracy_alone() -> None:
    metrics = compute_metrics("tokens", [[0, 1]], [np.array([0, 0])], ("NOUN", "VERB"), loss=0.5)
    assert (metrics["accuracy"], metrics["loss"]) == (0.5, 0.5)
    assert set(metrics["absent"]) == {"precision", "recall", "entity_f1"}
    assert "'NOUN' is no tag of an entity" in metrics["absent"]["entity_f1"]
    json.dumps(metrics, allow_nan=False)


def test_tags_that_cannot_be_measured_are_errors() -> None:
    with pytest.raises(DataError, match="2 sentences have tags, but 1 have scores"):
        measure(["O", "O"], ["O"])
    with pytest.raises(DataError, match="no words"):
        measure([""], [""])
    with pytest.raises(TrainingError, match="not finite for 1 of 2 examples"):
        compute_metrics("tokens", [[0], [0]], [np.array([[0.5, 0.5]]), np.array([[np.nan, 1]])], ("B-x", "O"))


def test_a_confusion_matrix_of_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="one class for each example"):
        confusion_matrix(np.array([[0, 1]]), np.array([[0, 1]]), ["a", "b"])


def at(degrees: list[float]) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_the_order_of_cosines_counted_by_hand() -> None:
    # Angles between the texts of a pair: 10, 50, 30, 90 degrees. Of the scores' order, 3 and 2 are swapped.
    vectors = np.stack([at([0, 0, 0, 0]), at([10, 50, 30, 90])], axis=1)
    scores = np.array([5.0, 4.0, 3.0, 0.0])
    metrics = compute_metrics("embed", scores, vectors, None)
    assert metrics["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    alike = np.cos(np.deg2rad([10, 50, 30, 90]))
    assert metrics["pearson"] == pytest.approx(scipy.stats.pearsonr(scores, alike).statistic)
    assert set(metrics) == {"spearman", "pearson"}
    rows = 3 * vectors.reshape(-1, 2)
    np.testing.assert_allclose(cosines(rows), alike)
    assert compute_metrics("embed", np.repeat(scores, 2), rows, None) == pytest.approx(metrics)


def test_pairs_without_a_score_are_left_out() -> None:
    vectors = np.stack([at([0, 0, 0, 0]), at([10, 50, 30, 90])], axis=1)
    some = compute_metrics("embed", np.array([5.0, np.nan, 3.0, 0.0]), vectors, None)
    assert some["spearman"] == pytest.approx(1.0)


def test_without_scores_partners_are_looked_for() -> None:
    # The first text finds its partner; the second finds the first's nearer than its own, the third two.
    vectors = np.stack([at([0, 30, 60]), at([10, 90, 180])], axis=1)
    metrics = compute_metrics("embed", np.full(3, np.nan), vectors, None)
    assert metrics["accuracy_at_1"] == pytest.approx(1 / 3)
    assert metrics["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_texts_that_are_there_twice_are_each_others_equal() -> None:
    vectors = np.stack([at([0, 0]), at([10, 10])], axis=1)
    assert compute_metrics("embed", np.full(2, np.nan), vectors, None)["accuracy_at_1"] == 1.0


def test_what_pairs_cannot_say_is_absent_with_the_reason() -> None:
    vectors = np.stack([at([0, 0]), at([10, 20])], axis=1)
    same = compute_metrics("embed", np.ones(2), vectors, None)
    assert same["absent"] == dict.fromkeys(("spearman", "pearson"), "all scores of this split are the same")
    with pytest.raises(DataError, match="2 pairs of vectors need as many scores, received 3"):
        compute_metrics("embed", np.ones(3), vectors, None)
