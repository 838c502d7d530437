"""Which example goes into which split: stratified, seeded, and with groups kept together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.config import Split, Task
from tlkit.data.labels import Labels
from tlkit.errors import DataCheckError

Names = npt.NDArray[np.str_]
_MOST_VALUES = 20
_BINS = 10
_PER_BIN = 10
_RARE = 10


def make_splits(strata: Sequence[Any], spec: Split, seed: int, groups: Sequence[Any] | None = None) -> Names:
    """The split of every example, drawn by `seed`; depends on the order of the rows and nothing else.

    Without groups each stratum gives its share, by largest remainders, and keeps at least one example for
    training: of a class with one example that is the only one. With `groups`, whole groups are handed out,
    largest first, each to the split that lacks most of its strata: the shares are approximate, and closer the
    more and the smaller the groups are.

    Raises DataCheckError where there are too few examples or groups for the splits that are asked for.
    """
    codes = pd.factorize(pd.Series(strata, dtype=object).astype(str), sort=True)[0]
    shares = {"test": spec.test, "validation": spec.validation}
    if groups is not None:
        return _by_group(
            codes, pd.factorize(pd.Series(groups, dtype=object).astype(str), sort=True)[0], shares, seed
        )
    splits = np.full(len(codes), "train", dtype="<U10")
    for number, (name, share) in enumerate(shares.items()):
        if share:
            splits[_draw(codes, splits == "train", share, name, np.random.default_rng([seed, number]))] = name
    return splits


def complete_splits(
    given: Names, strata: Sequence[Any], spec: Split, seed: int, groups: Sequence[Any] | None
) -> Names:
    """The source's own splits; a missing validation is taken out of train, a missing test stays missing.

    `spec.validation` is then a share of the training examples.
    """
    splits = given.astype("<U10")
    if "validation" in splits or not spec.validation:
        return splits
    train = np.flatnonzero(splits == "train").tolist()
    own = [strata[row] for row in train], [groups[row] for row in train] if groups is not None else None
    splits[train] = make_splits(own[0], Split(validation=spec.validation, test=0.0), seed, own[1])
    return splits


def strata_of_labels(labels: Labels, task: Task) -> list[str]:
    """What to stratify by: the label, the combination of labels (rare ones as one), or the number's bin.

    Of several numbers the first one counts; of tags, which kinds of entities there are. Pairs without scores
    are all alike.
    """
    if task == "embed" and np.isnan(labels.targets).all():
        return [""] * len(labels.text)
    if task in ("regress", "embed"):
        first = labels.targets if labels.targets.ndim == 1 else labels.targets[:, 0]
        return _bins(first)
    if task in ("multilabel", "tokens"):
        text = pd.Series(labels.text).astype(str)
        if task == "tokens":
            text = text.map(lambda tags: "|".join(sorted({tag.split("-", 1)[-1] for tag in tags.split(" ")})))
        return text.where(text.map(text.value_counts()) >= _RARE, "rare").tolist()
    return [str(name) for name in labels.text]


def strata_of_column(values: pd.Series) -> list[str]:
    """The values themselves where they are few or not numbers, else the bins of the numbers."""
    numbers = pd.to_numeric(values, errors="coerce")
    if values.nunique() <= _MOST_VALUES or numbers.isna().any():
        return values.astype(str).tolist()
    return _bins(numbers.to_numpy(np.float64))


def _bins(numbers: npt.NDArray[Any]) -> list[str]:
    count = int(np.clip(len(numbers) // _PER_BIN, 1, _BINS))
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, count + 1)[1:-1]))
    return [str(number) for number in np.searchsorted(edges, numbers, side="right")]


def _draw(
    codes: npt.NDArray[np.intp],
    free: npt.NDArray[np.bool_],
    share: float,
    name: str,
    rng: np.random.Generator,
) -> npt.NDArray[np.intp]:
    """Rows for one split: `share` of all rows, of each stratum alike, out of those that are `free`."""
    total = max(1, int(share * len(codes) + 0.5))
    sizes = np.bincount(codes)
    left = np.bincount(codes[free], minlength=len(sizes))
    most = np.maximum(left - 1, 0)
    if most.sum() < total:
        raise DataCheckError(
            f"Too few examples for a {name} split: {len(codes)} in {len(sizes)} classes. "
            f"Give more, or leave it out with data.split.{name}=0."
        )
    wanted = total * left / left.sum()
    counts = np.minimum(np.floor(wanted).astype(int), most)
    # Ties of remainders are broken by chance, or the first classes would always win.
    order = np.lexsort((rng.random(len(sizes)), -(wanted - np.floor(wanted))))
    while counts.sum() < total:
        for stratum in order[: len(order)]:
            if counts.sum() < total and counts[stratum] < most[stratum]:
                counts[stratum] += 1
    drawn = [
        rng.permutation(np.flatnonzero(free & (codes == stratum)))[:count]
        for stratum, count in enumerate(counts)
    ]
    return np.concatenate(drawn)


def _by_group(
    codes: npt.NDArray[np.intp], groups: npt.NDArray[np.intp], shares: dict[str, float], seed: int
) -> Names:
    names = ["train", *(name for name, share in shares.items() if share)]
    wanted = np.array([1 - sum(shares.values()), *(share for share in shares.values() if share)])
    table = np.zeros((groups.max() + 1, codes.max() + 1))
    np.add.at(table, (groups, codes), 1)
    if len(table) < len(names):
        raise DataCheckError(
            f"data.split.group_by gives {len(table)} groups, too few for {' and '.join(names)}: "
            "group by another column, or leave out a split (data.split.test=0)."
        )
    sizes = table.sum(axis=0)
    order = np.random.default_rng([seed, len(shares)]).permutation(len(table))
    order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
    placed = np.zeros((len(names), len(sizes)))
    choice = np.zeros(len(table), dtype=int)
    for rank, group in enumerate(order):
        # The squared deviation from the wanted counts grows least where this is least.
        cost = ((placed - wanted[:, None] * sizes) / sizes) @ table[group]
        empty = placed.sum(axis=1) == 0
        if empty.sum() >= len(order) - rank:  # no split stays without a group
            cost[~empty] = np.inf
        choice[group] = int(np.argmin(cost))
        placed[choice[group]] += table[group]
    return np.array(names, dtype="<U10")[choice[groups]]
