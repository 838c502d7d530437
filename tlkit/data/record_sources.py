"""Examples in files of records, as rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.config import DataConfig, Task
from tlkit.data.record_features import (
    DEFAULTS,
    LABELS,
    are_texts,
    kept_features,
    label_features,
    picture_feature,
    require_feature,
)
from tlkit.data.record_files import RecordFiles, find_record_files, is_pattern
from tlkit.data.record_scan import Scan, look_at, scan_records
from tlkit.data.rows import Note, Rows, short_name
from tlkit.data.table import read_weights
from tlkit.data.text_table import as_text, content_columns
from tlkit.errors import DataError, StorageError

_SEPARATOR = "|"  # between several labels of one example


def read_records(place: Path, spec: DataConfig) -> Rows:
    """The rows of files of records (TFRecord) with pictures: the bytes of a JPEG, PNG, WebP, BMP or GIF each.

    The features are those that `spec.columns` names (`path` is the picture); where it names none, the usual
    names are tried, and for the picture what the bytes begin with.

    Raises DataError where a feature is missing or of another kind, or a file is damaged; StorageError.
    """
    where, found = str(place), find_record_files(place)
    features = look_at(found.files)
    picture, labels = picture_feature(features, spec, where), label_features(features, spec, where)
    scan = scan_records(found.files, (picture,), kept_features(features, spec, labels, where))
    return _make_rows(place, found, scan, _label_columns(scan, labels, place), spec)


def read_text_records(place: Path, spec: DataConfig, task: Task) -> Rows:
    """The rows of files of records with texts, in the features that `spec.columns` names. Words with tags,
    unlike all else, are held in memory. Raises what `read_records` raises."""
    where, found = str(place), find_record_files(place)
    features = look_at(found.files)
    content = content_columns(spec, task)
    for name, key in content.items():
        require_feature(features, name, f"columns.{key}", where, kind="bytes")
    is_unscored = task == "embed" and spec.columns.label == DEFAULTS.label and not set(LABELS) & set(features)
    labels = () if is_unscored else label_features(features, spec, where)
    if task != "tokens":
        scan = scan_records(found.files, tuple(content), kept_features(features, spec, labels, where))
        return _make_rows(place, found, scan, _label_columns(scan, labels, place), spec)
    scan = scan_records(found.files, (), kept_features(features, spec, (*content, *labels), where))
    tags = {name: _lists(scan.columns[name], _class_names(place, name)) for name in labels}
    (words,) = (_lists(scan.columns[name]) for name in content)
    rows = _make_rows(place, found, scan, tags, spec)
    return replace(rows, texts=words, records=None, extras=rows.extras.drop(columns=list(content)))


def hold_texts(place: Path, spec: DataConfig) -> bool:
    """Whether files of records hold texts, not pictures. Raises what `read_records` raises."""
    return are_texts(look_at(find_record_files(place).files), spec)


def _make_rows(
    place: Path, found: RecordFiles, scan: Scan, labels: dict[str, list[Any]], spec: DataConfig
) -> Rows:
    table = pd.DataFrame(scan.columns, range(len(scan.records)), dtype=object)
    return Rows(
        where=str(place),
        name=_name(place),
        labels=pd.DataFrame(labels, table.index, dtype=object),
        records=scan.records,
        splits=_splits(found, scan),
        weights=read_weights(table, spec, str(place)),
        extras=table,
        notes=_notes(found),
        names=_names(scan),
        broken=scan.broken,
    )


def _label_columns(scan: Scan, labels: Sequence[str], place: Path) -> dict[str, list[Any]]:
    """One column for each label feature: several names in one are joined. Several numbers with fractions, and
    zeros and ones for all classes, have a column each."""
    columns: dict[str, list[Any]] = {}
    for name in labels:
        values = scan.columns[name]
        lists = [value for value in values if isinstance(value, list)]
        if lists and (isinstance(lists[0][0], float) or _are_flags(values)):
            if any(not isinstance(value, list) or len(value) != len(lists[0]) for value in values):
                raise DataError(
                    f"{place}: the feature {name!r} does not hold as many numbers in each record."
                )
            for number in range(len(lists[0])):
                columns[f"{name}.{number}"] = [value[number] for value in values]
        else:
            names = _class_names(place, name)
            columns[name] = [_label(value, names) for value in values]
    return columns


def _are_flags(values: Sequence[Any]) -> bool:
    """Whether each value says of every class whether it is there, by 0 or 1: as numbers of classes, one of
    them would stand in a list twice."""
    sizes = {len(value) if isinstance(value, list) else 1 for value in values}
    if len(sizes) != 1 or sizes == {1}:
        return False
    return all(one in (0, 1) for value in values for one in value) and any(
        len(set(value)) < len(value) for value in values
    )


def _label(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return _SEPARATOR.join(str(_label(one, names)) for one in value)
    if names and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None  # TFDS writes -1 where nobody knows
    return value


def _lists(values: Sequence[Any], names: Sequence[str] = ()) -> list[list[Any]]:
    """Words or tags of each record."""
    lists = [value if isinstance(value, list) else [] if value is None else [value] for value in values]
    return [[as_text(_label(one, names)) for one in each] for each in lists]


def _class_names(place: Path, label: str) -> list[str]:
    """The names of classes that TFDS writes beside its records, in the order of their numbers."""
    folder = place if place.is_dir() else place.parent
    path = folder / f"{label.replace('/', '.')}.labels.txt"
    if not path.is_file():
        return []
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"Cannot read {path}: {error}.") from None


def _splits(found: RecordFiles, scan: Scan) -> npt.NDArray[np.str_] | None:
    if set(found.splits) == {""}:
        return None
    by_file = [split for split, files in found.splits.items() for _ in files]
    return np.array(by_file, dtype=np.str_)[scan.records.file_of]


def _names(scan: Scan) -> list[str]:
    """How a person finds each record."""
    short = [Path(path).name for path in scan.records.files]
    return [
        f"{short[which]}, record {number}"
        for which, number in zip(scan.records.file_of.tolist(), scan.numbers, strict=True)
    ]


def _notes(found: RecordFiles) -> tuple[Note, ...]:
    return tuple(Note(str(path), "is beside the files of the splits", "ignored") for path in found.ignored)


def _name(place: Path) -> str:
    """What the data is called: the folder, or the file; TFDS has the version below the name."""
    named = place.parent if is_pattern(place) else place
    parts = [part for part in named.absolute().parts if not re.fullmatch(r"\d+(\.\d+)+", part)]
    return short_name(parts[-1].split(".")[0])
