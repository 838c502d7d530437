"""From labels as in the source to targets that a model learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.config import Task
from tlkit.data.rows import Note, Rows, list_some
from tlkit.errors import DataCheckError, DataError

_SEPARATOR = "|"
_TRUTH = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
_MANY = 20


@dataclass(frozen=True)
class Labels:
    """`text` (n,) is what the manifest shows; `targets` are as in `Examples`; `classes` are sorted names.

    Several labels of one row are joined with "|", several numbers, too.
    """

    text: npt.NDArray[np.object_]
    targets: npt.NDArray[Any]
    classes: tuple[str, ...] | None
    notes: tuple[Note, ...] = ()


def parse_labels(rows: Rows, task: Task, classes: Sequence[str] | None = None) -> Labels:
    """The labels of `rows` for `task`; `classes` fixes the names (those of an earlier run).

    Names are kept as they are, but for stray spaces around them, which are cut off and noted. They are
    sorted, as numbers where all are whole numbers.

    Raises DataCheckError for missing labels and names that `classes` does not hold, DataError for labels that
    do not fit the task.
    """
    if task == "regress":
        return _numbers(rows)
    if task == "multilabel":
        return _several(rows, classes)
    return _one_name(rows, classes)


def _one_name(rows: Rows, classes: Sequence[str] | None) -> Labels:
    if rows.labels.shape[1] != 1:
        raise DataError(
            f"{rows.where}: {rows.labels.shape[1]} label columns, but task=classify takes one. "
            "For several labels per picture use task=multilabel; of one-hot rows take argmax(axis=1)."
        )
    values = rows.labels.iloc[:, 0].tolist()
    _refuse_missing(rows, values)
    raw = [_name(value, rows.where) for value in values]
    _refuse_numbers(raw, rows.where)
    text = np.array([name.strip() for name in raw], dtype=object)
    names = _sorted_names(text, classes, rows)
    index = {name: number for number, name in enumerate(names)}
    targets = np.array([index[name] for name in text], dtype=np.int32)
    return Labels(text, targets, names, _stray_spaces(raw))


def _several(rows: Rows, classes: Sequence[str] | None) -> Labels:
    if rows.labels.shape[1] == 1:
        values = ["" if _is_missing(value) else _name(value, rows.where) for value in rows.labels.iloc[:, 0]]
        raw = [value.split(_SEPARATOR) for value in values]
        sets = [[name.strip() for name in names if name.strip()] for names in raw]
        notes = _stray_spaces([name for names in raw for name in names])
        if not any(sets):
            raise DataCheckError(f"{rows.where}: no row has a label.")
    else:
        truths = rows.labels.map(lambda value: _TRUTH.get(str(value).strip().lower()))
        wrong = [(int(row), name) for name in truths for row in np.flatnonzero(truths[name].isna())]
        if wrong:
            row, name = min(wrong)
            received = rows.labels[name].iloc[row]
            raise DataCheckError(
                f"{rows.where}: {len(wrong)} labels are not 0 or 1; the first is "
                f"{received!r} in column {name!r}, {rows.describe(row)}."
            )
        columns = [str(name) for name in truths]
        sets = [
            [name for name, truth in zip(columns, row, strict=True) if truth] for row in truths.to_numpy()
        ]
        notes, classes = (), classes or columns
    text = np.array([_SEPARATOR.join(names) for names in sets], dtype=object)
    ordered = _sorted_names([name for names in sets for name in names] or [], classes, rows)
    index = {name: number for number, name in enumerate(ordered)}
    targets = np.zeros((len(sets), len(ordered)), dtype=np.float32)
    for number, names in enumerate(sets):
        targets[number, [index[name] for name in names]] = 1.0
    return Labels(text, targets, ordered, notes)


def _numbers(rows: Rows) -> Labels:
    for column in rows.labels:
        values = rows.labels[column].tolist()
        _refuse_missing(rows, values)
        wrong = [row for row, value in enumerate(values) if not _is_number(value)]
        if wrong:
            raise DataError(
                f"{rows.where}: task=regress needs numbers, but {len(wrong)} labels in {column!r} are not; "
                f"the first is {values[wrong[0]]!r} ({rows.describe(wrong[0])}). For names use task=classify."
            )
    table = rows.labels.astype(np.float64)
    targets = table.to_numpy(np.float32)
    infinite = np.flatnonzero(~np.isfinite(targets).all(axis=1))
    if len(infinite):
        raise DataCheckError(
            f"{rows.where}: {len(infinite)} labels are not finite: {_some_rows(infinite.tolist())}."
        )
    text = np.array(
        [_SEPARATOR.join(f"{value:.9g}" for value in row) for row in table.to_numpy()], dtype=object
    )
    return Labels(text, targets[:, 0] if targets.shape[1] == 1 else targets, None)


def _sorted_names(names: Any, classes: Sequence[str] | None, rows: Rows) -> tuple[str, ...]:
    found = set(names)
    if classes is not None:
        unknown = sorted(found - set(classes))
        if unknown:
            raise DataCheckError(f"{rows.where}: labels that the model does not know: {list_some(unknown)}.")
        found = set(classes)
    if all(name.removeprefix("-").isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def _name(value: Any, where: str) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))  # a column of whole numbers becomes float as soon as one cell is missing
    if isinstance(value, str | bool | int | float | np.generic):
        return str(value)
    raise DataError(
        f"{where}: a label must be a text or a number, received {type(value).__name__} ({str(value)[:40]!r})."
    )


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip() in ("", "nan", "NaN")
    return (
        value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _refuse_missing(rows: Rows, values: list[Any]) -> None:
    missing = [row for row, value in enumerate(values) if _is_missing(value)]
    if missing:
        raise DataCheckError(
            f"{rows.where}: {len(missing)} of {len(values)} labels are missing (empty or NaN): "
            f"{_some_rows(missing)}."
        )


def _refuse_numbers(names: list[str], where: str) -> None:
    """Many different numbers with fractions are measurements, not classes."""
    distinct = set(names)
    if len(distinct) <= min(_MANY, len(names) // 2) or not all(_is_number(name) for name in distinct):
        return
    if any(not float(name).is_integer() for name in distinct if math.isfinite(float(name))):
        raise DataError(
            f"{where}: {len(distinct)} different numbers as labels (as {sorted(distinct)[0]}) are too many "
            "for task=classify. To predict a number use --task regress."
        )


def _stray_spaces(names: Sequence[str]) -> tuple[Note, ...]:
    stray = sorted({name for name in names if name != name.strip()})
    return tuple(
        Note("", f"label {name!r} has spaces around it", f"read as {name.strip()!r}") for name in stray
    )


def _some_rows(numbers: Sequence[int]) -> str:
    return "row " + list_some([number + 1 for number in numbers])
