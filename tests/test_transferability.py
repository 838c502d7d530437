"""LogME and nearest neighbours: against straightforward computations, and by what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from tlkit.errors import DataError
from tlkit.evaluation.transferability import log_maximum_evidence, nearest_neighbour_score

N, D = 60, 7


def problem(n: int = N, d: int = D, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, and numbers that follow from them but for some noise."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(n, d)) * np.geomspace(0.1, 3, d)
    return features, features @ random.normal(size=d) + noise * random.normal(size=n)


def classes_of(numbers: np.ndarray, count: int = 3) -> np.ndarray:
    return np.digitize(numbers, np.quantile(numbers, np.arange(1, count) / count))


def largest_evidence(features: np.ndarray, column: np.ndarray) -> float:
    """The same by a general optimiser over α and β, on the density of y ~ N(0, I/β + FFᵀ/α) written out."""

    def negative(logs: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(logs, -20, 20))  # the best may be at infinity
        covariance = np.eye(len(column)) / beta + features @ features.T / alpha
        density = scipy.stats.multivariate_normal(np.zeros(len(column)), covariance, allow_singular=True)
        return -float(density.logpdf(column)) / len(column)

    starts = [(0.0, 0.0), (3.0, 0.0), (-3.0, 2.0)]
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    found = [scipy.optimize.minimize(negative, s, method="Nelder-Mead", options=options).fun for s in starts]
    return -min(found)


@pytest.mark.parametrize(("n", "d"), [(60, 7), (20, 30)], ids=["more examples", "more features"])
def test_numbers_have_the_evidence_that_a_general_optimiser_finds(n: int, d: int) -> None:
    features, numbers = problem(n, d)
    standardised = (numbers - numbers.mean()) / numbers.std()
    expected = largest_evidence(features, standardised)
    assert log_maximum_evidence(features, numbers, "regress") == pytest.approx(expected, abs=1e-5)


def test_classes_have_the_mean_evidence_of_their_indicators() -> None:
    features, numbers = problem()
    labels = classes_of(numbers)
    expected = np.mean([largest_evidence(features, (labels == name).astype(float)) for name in range(3)])
    assert log_maximum_evidence(features, labels, "classify") == pytest.approx(expected, abs=1e-5)


def test_labels_have_the_mean_evidence_of_their_columns() -> None:
    features, numbers = problem()
    columns = np.stack([numbers > 0, numbers > 1], axis=1).astype(np.float32)
    expected = np.mean([largest_evidence(features, column) for column in columns.T])
    assert log_maximum_evidence(features, columns, "multilabel") == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("objective", ["classify", "regress"])
def test_evidence_does_not_depend_on_how_the_features_are_written(objective: str) -> None:
    features, numbers = problem()
    targets = classes_of(numbers) if objective == "classify" else numbers
    random = np.random.default_rng(1)
    rotation = np.linalg.qr(random.normal(size=(D, D)))[0]
    order = random.permutation(N)
    expected = log_maximum_evidence(features, targets, objective)
    same = {
        "rotated": (features @ rotation, targets),
        "scaled": (1000 * features, targets),
        "reordered": (features[order], targets[order]),
        "with an empty feature": (np.pad(features, ((0, 0), (0, 2))), targets),
    }
    for name, (changed, its_targets) in same.items():
        assert log_maximum_evidence(changed, its_targets, objective) == pytest.approx(expected), name


def test_evidence_does_not_depend_on_the_unit_of_a_number_or_the_names_of_classes() -> None:
    features, numbers = problem()
    assert log_maximum_evidence(features, 5 * numbers + 100, "regress") == pytest.approx(
        log_maximum_evidence(features, numbers, "regress")
    )
    labels = classes_of(numbers)
    assert log_maximum_evidence(features, np.array([7, 2, 9])[labels], "classify") == pytest.approx(
        log_maximum_evidence(features, labels, "classify")
    )


@pytest.mark.parametrize("objective", ["classify", "multilabel", "regress"])
def test_both_scores_fall_where_features_say_less(objective: str) -> None:
    features, numbers = problem(200)
    targets = {
        "classify": classes_of(numbers),
        "multilabel": np.stack([numbers > 0, numbers > 1], axis=1).astype(np.float32),
        "regress": numbers,
    }[objective]
    random = np.random.default_rng(2)
    noisy = [features + scale * random.normal(size=features.shape) for scale in (0, 2, 20)]
    for measure in (log_maximum_evidence, nearest_neighbour_score):
        scores = [measure(one, targets, objective) for one in noisy]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > scores[2] + 0.05


def test_features_that_say_nothing_or_everything_have_finite_evidence() -> None:
    features, numbers = problem()
    labels = classes_of(numbers)
    nothing = log_maximum_evidence(np.zeros((N, D)), labels, "classify")
    column = largest_evidence(np.zeros((N, 1)), (labels == 0).astype(float))
    assert nothing == pytest.approx(column, abs=1e-5)  # three classes of one size
    everything = log_maximum_evidence(np.eye(3)[labels], labels, "classify")
    assert np.isfinite(everything)
    assert everything > log_maximum_evidence(features, labels, "classify") > nothing


def test_neighbours_are_other_examples_by_cosine() -> None:
    angles = np.deg2rad([0, 1, 2, 3, 4, 5, 90, 91, 92, 93, 94, 95])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.tile(2.0 ** np.arange(6), 2)[:, None]
    labels = np.repeat([0, 1], 6)
    assert nearest_neighbour_score(features, labels, "classify") == 1.0
    labels[0] = 1  # nobody near has its label, and it outvotes nobody
    assert nearest_neighbour_score(features, labels, "classify") == pytest.approx(11 / 12)
    assert nearest_neighbour_score(features, np.repeat([-1.0, 1.0], 6), "regress") == 1.0


def test_the_nearer_neighbour_decides_a_tie() -> None:
    angles = np.deg2rad([0, 1, 10])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert nearest_neighbour_score(features, np.array([0, 0, 1]), "classify", neighbours=2) == pytest.approx(
        2 / 3
    )


def test_what_cannot_be_measured_is_refused() -> None:
    features, numbers = problem()
    with pytest.raises(DataError, match="all examples are the same"):
        log_maximum_evidence(features, np.zeros(N, int), "classify")
    with pytest.raises(DataError, match="not finite"):
        log_maximum_evidence(np.where(features > 3, np.nan, features), numbers, "regress")
    with pytest.raises(DataError, match="do not belong to 59 targets"):
        log_maximum_evidence(features, numbers[1:], "regress")
    with pytest.raises(DataError, match="5 neighbours need more examples than 5"):
        nearest_neighbour_score(features[:5], numbers[:5], "regress")


def test_a_label_that_nobody_has_is_left_out() -> None:
    features, numbers = problem()
    column = (numbers > 0).astype(np.float32)
    columns = np.stack([column, np.zeros(N, np.float32)], axis=1)
    for measure in (log_maximum_evidence, nearest_neighbour_score):
        assert measure(features, columns, "multilabel") == measure(features, column[:, None], "multilabel")
