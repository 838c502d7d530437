"""What every reader gives: the rows of a source, before any picture or text was looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.data.manifest import SPLITS
from tlkit.data.records import Records
from tlkit.errors import DataError

SPLIT_ALIASES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}

Text = str | tuple[str, str] | list[str]


class Note(NamedTuple):
    """A line of the data report."""

    path: str
    problem: str
    action: str


@dataclass(frozen=True)
class Rows:
    """One row per example, in an order that does not depend on the file system.

    `where` names the source in messages. `paths` (absolute), `records` (each a picture, a text or a pair of
    texts), `pictures` (arrays of any accepted form) or `texts` (each a string, a pair of strings, or a list
    of words) hold the content.
    `labels` has a column per label column, values as in the source; none for pairs without a score. `splits`
    are the source's own ("" leaves a row out). `extras` are further columns, to group or stratify by.
    `empty_classes` are class folders without a picture or text. `hint` may end the message about a single
    class. `names` say how a person finds a row. `broken` says of a row why its reader could make nothing of
    it.
    """

    where: str
    name: str
    labels: pd.DataFrame
    paths: Sequence[str] | None = None
    records: Records | None = None
    pictures: Sequence[npt.NDArray[Any]] | None = None
    texts: Sequence[Text] | None = None
    splits: npt.NDArray[np.str_] | None = None
    extras: pd.DataFrame = field(default_factory=pd.DataFrame)
    weights: npt.NDArray[np.float32] | None = None
    notes: tuple[Note, ...] = ()
    empty_classes: tuple[str, ...] = ()
    hint: str = ""
    names: Sequence[str] | None = None
    broken: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def are_pairs(self) -> bool:
        """Whether the content are pairs of texts."""
        if self.records is not None:
            return len(self.records.features) > 1
        return isinstance(self.texts[0] if self.texts else None, tuple)

    def describe(self, row: int) -> str:
        """How a person finds a row: its path, or its number (from 1, the header not counted)."""
        if self.names is not None:
            return self.names[row]
        return self.paths[row] if self.paths is not None else f"row {row + 1}"

    def read(self, row: int) -> bytes:
        """What is in the file or the record of a row. Raises OSError."""
        if self.records is not None:
            return self.records.read(row)
        assert self.paths is not None
        with open(self.paths[row], "rb") as file:  # noqa: PTH123  a Path keeps the name of every file in memory
            return file.read()


def short_name(text: str) -> str:
    """A name that fits into a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "data"


def parse_splits(values: Sequence[Any], where: str) -> npt.NDArray[np.str_]:
    """The values of a split column as names of splits; empty values stay "".

    Raises DataError for an unknown value, and where no row is for training.
    """
    known: list[str] = []
    for row, value in enumerate(values):
        text = "" if pd.isna(value) else str(value).strip().lower()
        if text and text not in SPLIT_ALIASES:
            raise DataError(
                f"{where}: row {row + 1} has the split {value!r}. Allowed: {', '.join(SPLITS)}, "
                "or empty to leave it out."
            )
        known.append(SPLIT_ALIASES.get(text, ""))
    splits = np.array(known, dtype=np.str_)
    if "train" not in known:
        raise DataError(f"{where}: no row has the split 'train', received: {', '.join(sorted(set(known)))}.")
    return splits


def list_some(items: Sequence[Any], most: int = 3, separator: str = ", ") -> str:
    """The first few of `items`, and how many more there are."""
    shown = separator.join(str(item) for item in items[:most])
    return f"{shown}{separator}and {len(items) - most} more" if len(items) > most else shown
