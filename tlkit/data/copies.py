"""Texts that stand in a source more than once: which copies are left out, by a stated rule.

Two texts are copies where they have the same words: they differ in white space and Unicode form at most.

- Of copies with one label the first is kept; but a copy that the source itself puts into validation or test
  stays there, as given, and takes those in train out.
- Copies with different labels leave train, all of them. In validation and test they stay: whatever a model
  answers, it is measured on what the source says.
- Numbers that differ are measurements, not a contradiction: such copies stay in train, unless one of them is
  in validation or test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tlkit.config import DataConfig
from tlkit.data.rows import Note, Rows

_HELD_OUT = ("validation", "test")
_SHOWN = 60


@dataclass(frozen=True)
class Copies:
    """`groups`: the rows of each set of copies, in order. `labels` (n,) is what each row says, and `nominal`
    that these are names and not numbers."""

    groups: tuple[tuple[int, ...], ...]
    labels: Sequence[str]
    nominal: bool

    def differ(self, group: Sequence[int]) -> bool:
        """Whether copies have different labels."""
        return len({self.labels[row] for row in group}) > 1


def find_copies(
    keys: Sequence[Hashable], labels: Sequence[str], usable: npt.NDArray[np.bool_], nominal: bool
) -> Copies:
    """The usable rows whose keys are equal."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for row in np.flatnonzero(usable).tolist():
        members[keys[row]].append(row)
    return Copies(tuple(tuple(group) for group in members.values() if len(group) > 1), labels, nominal)


def duplicates_to_drop(copies: Copies, given: npt.NDArray[np.str_] | None, spec: DataConfig) -> list[int]:
    """Rows to leave out before splits are made; `given` are the source's own."""
    if spec.duplicates == "keep":
        return []
    dropped: list[int] = []
    for group in copies.groups:
        alike: dict[str, list[int]] = defaultdict(list)
        for row in group:
            alike[copies.labels[row]].append(row)
        for members in alike.values():
            free = [row for row in members if given is None or given[row] not in _HELD_OUT]
            dropped += free if len(free) < len(members) else free[1:]
    return dropped


def conflicts_to_drop(copies: Copies, splits: npt.NDArray[np.str_], spec: DataConfig) -> list[int]:
    """Rows to take out of train once every row has its split."""
    dropped: list[int] = []
    for group in copies.groups:
        if not copies.differ(group):
            continue
        train = [row for row in group if splits[row] == "train"]
        is_held_out = any(splits[row] in _HELD_OUT for row in group)
        drops = spec.conflicts == "drop" if copies.nominal else spec.duplicates == "drop" and is_held_out
        dropped += train if drops else []
    return dropped


def note_copies(
    copies: Copies, rows: Rows, splits: npt.NDArray[np.str_]
) -> tuple[list[Note], dict[int, str]]:
    """A note for every copy but the first of those that are kept as they are, and the flag of each."""
    notes: list[Note] = []
    flags: dict[int, str] = {}
    for group in copies.groups:
        for row in group:
            other = group[0] if row != group[0] else group[1]
            if row == group[0] and splits[row]:
                continue
            differs = copies.labels[row] != copies.labels[other]
            problem = f"has the same words as {rows.describe(other)}"
            if differs:
                labels = [copies.labels[one][:_SHOWN] for one in (row, other)]
                problem += f", but is labelled {labels[0]!r} and not {labels[1]!r}"
            if splits[row] and splits[other] and splits[row] != splits[other]:
                problem += f", and is in {splits[row]} while that is in {splits[other]}"
            notes.append(Note(rows.describe(row), problem, "kept" if splits[row] else "left out"))
            flags[row] = "duplicate conflict" if differs and copies.nominal else "duplicate"
    return notes, flags
