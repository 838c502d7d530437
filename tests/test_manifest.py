"""Splits and the manifest: stratified, seeded, and sensible on very little data."""

import numpy as np
import pandas as pd
import pytest

from tlkit.config import Split
from tlkit.data.labels import Labels
from tlkit.data.splits import complete_splits, make_splits, strata_of_column, strata_of_labels
from tlkit.errors import DataCheckError


def counts_of(splits, strata=None):
    table = pd.crosstab(np.zeros(len(splits)) if strata is None else np.asarray(strata), splits)
    return {name: table[name].tolist() for name in table}


def test_each_stratum_gives_its_share():
    strata = ["a"] * 100 + ["b"] * 40 + ["c"] * 20
    assert counts_of(make_splits(strata, Split(), 0), strata) == {
        "train": [70, 28, 14],
        "validation": [15, 6, 3],
        "test": [15, 6, 3],
    }


def test_the_seed_alone_draws_the_split():
    strata = ["a", "b"] * 50
    first = make_splits(strata, Split(), 5)
    np.testing.assert_array_equal(first, make_splits(strata, Split(), 5))
    assert not np.array_equal(first, make_splits(strata, Split(), 6))


@pytest.mark.parametrize("sizes", [(1, 40), (2, 40), (3, 3, 3), (1, 1, 1, 9), (2, 2)])
def test_every_class_keeps_an_example_for_training(sizes):
    strata = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    for seed in range(20):
        splits = make_splits(strata, Split(), seed)
        assert {"train", "validation", "test"} == set(splits)
        assert set(np.asarray(strata)[splits == "train"]) == set(strata)


def test_shares_hold_with_many_small_classes():
    strata = [str(number // 3) for number in range(300)]
    assert counts_of(make_splits(strata, Split(), 0)) == {"train": [210], "validation": [45], "test": [45]}


def test_too_few_examples_say_which_split_cannot_be_made():
    with pytest.raises(
        DataCheckError, match=r"Too few examples for a validation split.*data\.split\.validation=0"
    ):
        make_splits(["a", "b", "b"], Split(), 0)
    with pytest.raises(DataCheckError, match=r"Too few examples for a test split"):
        make_splits(["a", "b"], Split(), 0)
    assert make_splits(["a", "b"], Split(validation=0, test=0), 0).tolist() == ["train", "train"]


def test_groups_stay_together_and_every_split_gets_one():
    rng = np.random.default_rng(0)
    for count in (3, 4, 10, 60):
        groups = rng.integers(0, count, 40 * count)
        strata = [str(number) for number in rng.integers(0, 3, len(groups))]
        splits = make_splits(strata, Split(), 1, groups.tolist())
        assert pd.DataFrame({"group": groups, "split": splits}).groupby("group")["split"].nunique().max() == 1
        assert set(splits) == {"train", "validation", "test"}
    shares = {name: size[0] / len(splits) for name, size in counts_of(splits).items()}
    assert shares == pytest.approx({"train": 0.7, "validation": 0.15, "test": 0.15}, abs=0.02)


def test_groups_are_stratified():
    groups = [number // 4 for number in range(400)]
    strata = ["rare" if group % 10 == 0 else "common" for group in groups]
    rare = counts_of(make_splits(strata, Split(), 0, groups), strata)
    assert all(sizes[1] >= 4 for sizes in rare.values())


def test_too_few_groups_say_what_to_do():
    with pytest.raises(DataCheckError, match="2 groups"):
        make_splits(["a"] * 10, Split(), 0, ["x"] * 5 + ["y"] * 5)


def test_given_splits_are_kept_and_validation_comes_out_of_train():
    given = np.array(["train"] * 20 + ["test"] * 5 + [""] * 2)
    splits = complete_splits(given, ["a", "b", "a"] * 9, Split(validation=0.2), 0, None)
    assert counts_of(splits) == {"": [2], "test": [5], "train": [16], "validation": [4]}
    assert (splits[20:] == given[20:]).all()
    without = complete_splits(given, ["a"] * 27, Split(validation=0), 0, None)
    np.testing.assert_array_equal(without, given)


def test_numbers_are_stratified_by_quantile_and_rare_combinations_as_one():
    numbers = np.random.default_rng(0).lognormal(size=200).astype(np.float32)
    bins = strata_of_labels(Labels(numbers.astype(object), numbers, None), "regress")
    assert pd.Series(bins).value_counts().tolist() == [20] * 10
    text = np.array(["a|b"] * 30 + ["a"] * 20 + ["b|c"] + ["c"] * 2, dtype=object)
    strata = strata_of_labels(Labels(text, np.zeros((53, 3)), ("a", "b", "c")), "multilabel")
    assert pd.Series(strata).value_counts().to_dict() == {"a|b": 30, "a": 20, "rare": 3}
    assert strata_of_column(pd.Series([0.0, 0.3, 1.0] * 40)) == ["0.0", "0.3", "1.0"] * 40
    assert len(set(strata_of_column(pd.Series(np.arange(200))))) == 10
