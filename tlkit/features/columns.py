"""What a table of features holds: a column for each tensor of the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ColumnSpec:
    """One tensor of the boundary. `shape` is that of a row, without its `axis`; `dtype` is numpy's.

    `axis` names what a row has more or less of than another (`tokens` or `words`); None: all are alike.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: str | None = None

    @property
    def bytes_each(self) -> int:
        """Bytes of a row, or of one element of its axis."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, eq=False)
class Column:
    """The values of all rows: (rows, *shape); with an axis (elements of all rows, *shape), where those of row
    i are `values[starts[i] : starts[i] + lengths[i]]`."""

    spec: ColumnSpec
    values: npt.NDArray[Any]
    starts: npt.NDArray[np.int64] | None = None
    lengths: npt.NDArray[np.int32] | None = None


def make_column(
    spec: ColumnSpec, values: npt.NDArray[Any], lengths: dict[str, npt.NDArray[np.int32]]
) -> Column:
    """A column over flat values; `lengths` are those of the rows, by axis."""
    values = values.reshape(-1, *spec.shape)
    if spec.axis is None:
        return Column(spec, values)
    sizes = lengths[spec.axis]
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)[:-1]]) if len(sizes) else np.zeros(0)
    return Column(spec, values, starts.astype(np.int64), sizes)
