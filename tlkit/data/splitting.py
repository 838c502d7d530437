"""The split of every row: the source's own, drawn, or one for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tlkit.config import DataConfig, Task
from tlkit.data.labels import Labels
from tlkit.data.rows import Rows
from tlkit.data.splits import complete_splits, make_splits, strata_of_column, strata_of_labels
from tlkit.data.table import require_column
from tlkit.errors import DataCheckError, DataError


def read_strata_and_groups(
    rows: Rows, labels: Labels, spec: DataConfig, task: Task
) -> tuple[list[str], list[Any] | None]:
    """What to stratify by and what to group by, of every row, as `spec.split` says.

    Raises DataError where there is no such column, DataCheckError where it has empty cells.
    """
    chosen = {}
    for key in ("stratify_by", "group_by"):
        column = getattr(spec.split, key)
        if column is None:
            continue
        if rows.extras.empty:
            raise DataError(f"{rows.where}: data.split.{key} = {column!r} needs a table with that column.")
        require_column(rows.extras, column, f"data.split.{key}", rows.where)
        chosen[key] = rows.extras[column]
        missing = np.flatnonzero(chosen[key].isna() | (chosen[key].astype(str).str.strip() == ""))
        if len(missing):
            raise DataCheckError(
                f"{rows.where}: {len(missing)} rows have no value in {column!r} (data.split.{key}); "
                f"the first is row {missing[0] + 1}."
            )
    strata = (
        strata_of_column(chosen["stratify_by"]) if "stratify_by" in chosen else strata_of_labels(labels, task)
    )
    return strata, chosen["group_by"].tolist() if "group_by" in chosen else None


def split_rows(
    rows: Rows,
    usable: npt.NDArray[np.bool_],
    spec: DataConfig,
    seed: int,
    strata: list[str],
    groups: list[Any] | None,
    only: str | None,
) -> npt.NDArray[np.str_]:
    """The split of every row, "" for those that are left out.

    Raises DataCheckError where there are too few examples for the splits that are asked for.
    """
    splits = np.full(len(rows), "", dtype="<U10")
    if only is not None:
        has_own = rows.splits is not None and bool(np.any((rows.splits == only) & usable))
        chosen = usable & (rows.splits == only) if has_own else usable
        splits[chosen] = only
        return splits
    good = np.flatnonzero(usable)
    own_groups = [groups[row] for row in good] if groups is not None else None
    own_strata = [strata[row] for row in good]
    if rows.splits is None:
        splits[good] = make_splits(own_strata, spec.split, seed, own_groups)
    else:
        splits[good] = complete_splits(rows.splits[good], own_strata, spec.split, seed, own_groups)
    return splits
