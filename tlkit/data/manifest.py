"""What a run learns from: the manifest of all examples, and the examples of each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.config.head import Objective
from tlkit.data.pictures import Pictures
from tlkit.data.records import Records

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Manifest:
    """The table of examples, one row each.

    `table` has the columns `id` (the content's hash and the row), `path` ("" for pictures in memory; of a
    record the name of its file and its number), `label` (as in the source), `split` ("train", "validation",
    "test", or "" where the example is left out), `hash` (sha256 of the raw content), `flags` ("unreadable",
    "duplicate" or "duplicate conflict", where the same content has another label), and the columns that the
    split was made by. `classes` are sorted names, None for regression.

    Of texts, `path` is the file, or the line or row of the source, and `text` (and `text_b`) follow it as
    read, words joined by spaces; a text of more than 1,000 characters is only referred to and "" here, and so
    is any that stays in its record.
    """

    table: pd.DataFrame
    classes: tuple[str, ...] | None


@dataclass(frozen=True)
class Examples:
    """The examples of one split, ready to feed.

    `samples`: uint8 (n, H, W, 3); of texts an object array of normalised strings (n,), of pairs (n, 2), or of
    lists of words (n,). None where each epoch reads again, from `records` or else `paths`. `targets`:
    int32 (n,) for `classify`, float32 (n, classes) of 0 and 1 for `multilabel`, float32 (n,) or (n, k) for
    `regress`, an object array of int32 arrays, one tag per word, for `tokens`, float32 (n,) for `embed`, NaN
    without a score. `weights`: float32 (n,), where the source brought them. `lengths`: int32 (n,), the tokens
    of each text as the model sees it: cut, special tokens included, all of its windows (padded) where it has
    several; None for pictures. `marks`: int64 (n,), of pairs of texts (n, 2), where each epoch reads again:
    what tells whether a content is still the one that was read at first (see `checked_reader`).
    """

    ids: npt.NDArray[np.str_]
    paths: npt.NDArray[Any] | None
    samples: npt.NDArray[Any] | Pictures | None
    targets: npt.NDArray[Any]
    weights: npt.NDArray[np.float32] | None = None
    lengths: npt.NDArray[np.int32] | None = None
    records: Records | None = None
    marks: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def by_length(self) -> npt.NDArray[np.intp]:
        """An order in which texts of like length are together, because a batch is as slow as its longest
        text. Pictures stay in theirs."""
        if self.lengths is None:
            return np.arange(len(self))
        return np.argsort(self.lengths, kind="stable")

    def read(self, number: int) -> bytes:
        """What the file or the record of an example holds now. Raises OSError."""
        if self.records is not None:
            return self.records.read(number)
        assert self.paths is not None
        return Path(self.paths[number]).read_bytes()

    def release(self) -> None:
        """Give back the memory that holds what a file has, too."""
        if isinstance(self.samples, Pictures):
            self.samples.release()

    def take(self, rows: npt.ArrayLike) -> Examples:
        """These examples, in this order."""

        def pick(part: Any) -> Any:
            return None if part is None else part[rows]

        return Examples(**{field.name: pick(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True)
class Dataset:
    """A manifest, its splits (those that there are), and what was found while reading.

    `report` has the columns `path`, `problem` and `action`. `name` is short and fit for a folder's name.
    `objective` is what the labels ask for: the task, and of `pair` what it turned out to be. `truncated` is
    the share of texts that are longer than the model takes.
    """

    manifest: Manifest
    splits: Mapping[str, Examples]
    report: pd.DataFrame
    name: str
    objective: Objective = "classify"
    truncated: float = 0.0
