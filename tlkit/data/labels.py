"""From labels as in the source to targets that a model learns."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.config import Task
from tlkit.config.head import Objective
from tlkit.data.rows import Note, Rows, list_some
from tlkit.errors import DataCheckError, DataError

_SEPARATOR = "|"
_TRUTH = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
_MANY = 20


@dataclass(frozen=True)
class Labels:
    """`text` (n,) is what the manifest shows; `targets` are as in `Examples`; `classes` are sorted names.

    Several labels of one row are joined with "|", several numbers, too; tags with spaces.
    """

    text: npt.NDArray[np.object_]
    targets: npt.NDArray[Any]
    classes: tuple[str, ...] | None
    notes: tuple[Note, ...] = ()


def parse_labels(
    rows: Rows, objective: Task, classes: Sequence[str] | None = None, merge: bool = False
) -> Labels:
    """The labels of `rows` for `objective`; `classes` fixes the names (those of an earlier run).

    Names are kept as they are, but for stray spaces around them, which are cut off and noted. They are
    sorted, as numbers where all are whole numbers. Names that differ only in case and white space are noted,
    and with `merge` read as the most frequent of them.

    Raises DataCheckError for missing labels and names that `classes` does not hold, DataError for labels that
    do not fit the task.
    """
    if objective == "embed" and not rows.labels.shape[1]:
        return Labels(np.full(len(rows), "", dtype=object), np.full(len(rows), np.nan, np.float32), None)
    if objective in ("regress", "embed"):
        return _numbers(rows, objective)
    if objective == "multilabel":
        return _several(rows, classes, merge)
    return _one_name(rows, classes, merge)


def resolve_pair(rows: Rows, chosen: Literal["auto", "classify", "regress"]) -> Objective:
    """What `pair` learns: as chosen; of `auto`, values where all labels are numbers, some with fractions."""
    if chosen != "auto":
        return chosen
    values = [value for name in rows.labels for value in rows.labels[name] if not _is_missing(value)]
    if not values or not all(_is_number(value) for value in values):
        return "classify"
    return "regress" if any(not float(value).is_integer() for value in values) else "classify"


def merge_spellings(
    names: Iterable[str], merge: bool, classes: Sequence[str] | None = None
) -> tuple[dict[str, str], list[Note]]:
    """Every name's spelling, and a note for each that differs from a more frequent one in case or white space
    alone. Without `merge`, and for names that `classes` holds, it is the name itself."""
    counts = Counter(names)
    alike: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        alike[" ".join(name.casefold().split())].append(name)
    spelling = {name: name for name in counts}
    notes = []
    for group in alike.values():
        known = [name for name in group if classes is None or name in classes] or group
        best = min(known, key=lambda name: (-counts[name], name))
        for name in sorted(group):
            if name == best:
                continue
            if merge and name not in (classes or ()):
                spelling[name] = best
            problem = (
                f"labels {best!r} and {name!r} ({counts[best]:,} and {counts[name]:,} times) differ only in "
                "case or white space"
            )
            action = f"read as {best!r}" if spelling[name] == best else "kept apart (see data.merge_labels)"
            notes.append(Note("", problem, action))
    return spelling, notes


def _one_name(rows: Rows, classes: Sequence[str] | None, merge: bool) -> Labels:
    if rows.labels.shape[1] != 1:
        raise DataError(
            f"{rows.where}: {rows.labels.shape[1]} label columns, but task=classify takes one. "
            "For several labels per picture use task=multilabel; of one-hot rows take argmax(axis=1)."
        )
    values = rows.labels.iloc[:, 0].tolist()
    _refuse_missing(rows, values)
    raw = [_name(value, rows.where) for value in values]
    _refuse_numbers(raw, rows.where)
    spelling, notes = merge_spellings((name.strip() for name in raw), merge, classes)
    text = np.array([spelling[name.strip()] for name in raw], dtype=object)
    names = sorted_names(text, classes, rows)
    index = {name: number for number, name in enumerate(names)}
    targets = np.array([index[name] for name in text], dtype=np.int32)
    return Labels(text, targets, names, (*_stray_spaces(raw), *notes))


def _several(rows: Rows, classes: Sequence[str] | None, merge: bool) -> Labels:
    if rows.labels.shape[1] == 1:
        values = ["" if _is_missing(value) else _name(value, rows.where) for value in rows.labels.iloc[:, 0]]
        raw = [value.split(_SEPARATOR) for value in values]
        sets = [[name.strip() for name in names if name.strip()] for names in raw]
        spelling, alike = merge_spellings((name for names in sets for name in names), merge, classes)
        sets = [list(dict.fromkeys(spelling[name] for name in names)) for names in sets]
        notes = (*_stray_spaces([name for names in raw for name in names]), *alike)
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
    ordered = sorted_names([name for names in sets for name in names] or [], classes, rows)
    index = {name: number for number, name in enumerate(ordered)}
    targets = np.zeros((len(sets), len(ordered)), dtype=np.float32)
    for number, names in enumerate(sets):
        targets[number, [index[name] for name in names]] = 1.0
    return Labels(text, targets, ordered, notes)


def _numbers(rows: Rows, objective: Task) -> Labels:
    if objective == "embed" and rows.labels.shape[1] > 1:
        raise DataError(f"{rows.where}: {rows.labels.shape[1]} label columns, but task=embed takes one.")
    for column in rows.labels:
        values = rows.labels[column].tolist()
        _refuse_missing(rows, values)
        wrong = [row for row, value in enumerate(values) if not _is_number(value)]
        if wrong:
            names_task = "pair" if rows.are_pairs else "classify"
            raise DataError(
                f"{rows.where}: task={objective} needs numbers, but {len(wrong)} labels in {column!r} are "
                f"not; the first is {values[wrong[0]]!r} ({rows.describe(wrong[0])}). For names use "
                f"task={names_task}."
            )
    table = rows.labels.astype(np.float64)
    targets = table.to_numpy(np.float32)
    infinite = np.flatnonzero(~np.isfinite(targets).all(axis=1))
    if len(infinite):
        raise DataCheckError(
            f"{rows.where}: {len(infinite)} labels are not finite: {_some_rows(rows, infinite.tolist())}."
        )
    text = np.array(
        [_SEPARATOR.join(f"{value:.9g}" for value in row) for row in table.to_numpy()], dtype=object
    )
    return Labels(text, targets[:, 0] if targets.shape[1] == 1 else targets, None)


def sorted_names(names: Any, classes: Sequence[str] | None, rows: Rows) -> tuple[str, ...]:
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
            f"{_some_rows(rows, missing)}."
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


def _some_rows(rows: Rows, numbers: Sequence[int]) -> str:
    if rows.names is not None:
        return list_some([rows.names[number] for number in numbers])
    return "row " + list_some([number + 1 for number in numbers])
