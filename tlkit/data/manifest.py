"""What a run learns from: the manifest of all examples, and the examples of each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Manifest:
    """The table of examples, one row each.

    `table` has the columns `id` (the content's hash and the row), `path` ("" for pictures in memory), `label`
    (as in the source), `split` ("train", "validation", "test", or "" where the example is left out), `hash`
    (sha256 of the raw content), `flags` ("unreadable", "duplicate" or "duplicate conflict", where the same
    content has another label), and the columns that the split was made by. `classes` are
    sorted names, None for regression.
    """

    table: pd.DataFrame
    classes: tuple[str, ...] | None


@dataclass(frozen=True)
class Examples:
    """The examples of one split, ready to feed.

    `samples`: uint8 (n, H, W, 3), None where each epoch decodes again from `paths`. `targets`: int32 (n,) for
    `classify`, float32 (n, classes) of 0 and 1 for `multilabel`, float32 (n,) or (n, k) for `regress`.
    `weights`: float32 (n,), where the source brought them.
    """

    ids: npt.NDArray[np.str_]
    paths: npt.NDArray[np.str_] | None
    samples: npt.NDArray[np.uint8] | None
    targets: npt.NDArray[Any]
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dataset:
    """A manifest, its splits (those that there are), and what was found while reading.

    `report` has the columns `path`, `problem` and `action`. `name` is short and fit for a folder's name.
    """

    manifest: Manifest
    splits: Mapping[str, Examples]
    report: pd.DataFrame
    name: str
