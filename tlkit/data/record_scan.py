"""One pass over files of records: where each of them lies, and what their small features say."""

from __future__ import annotations

import functools
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tlkit.data.records import FOOTER, HEADER, Records
from tlkit.errors import DataError, StorageError
from tlkit.progress import byte_bar

_AHEAD = 8  # records that are read while one is looked at
_SHOWN_EVERY = 256  # records
_LOOKED_AT = 32  # records, which may lack a feature that others have
_MARK = tuple[str, int, int]  # path, size and time of change of a file


@dataclass(frozen=True)
class Feature:
    """A feature of the first records: its `kind` (`bytes`, `int64` or `float`), and the first `values`."""

    kind: str
    values: list[Any]


@dataclass(frozen=True, eq=False)
class Scan:
    """What a pass found, one row for each record, in the order of the files.

    Attributes:
        records: Where they are.
        columns: Of each feature that was asked for, a value, or a list of as many as there are. None: none.
        numbers: The place of each record in its file, from 1.
        broken: Why a row has no content.
    """

    records: Records
    columns: Mapping[str, list[Any]]
    numbers: Sequence[int]
    broken: Mapping[int, str]


def look_at(files: Sequence[Path]) -> dict[str, Feature]:
    """The features of the first few records, by name.

    Raises DataError where there is no record or it is no `tf.train.Example`, StorageError.
    """
    found: dict[str, Feature] = {}
    seen = 0
    for path in files:
        for raw in records_in(path, take=_LOOKED_AT - seen):
            seen += 1
            for name, feature in _features(raw, path, seen).items():
                kind, values = _values(feature)
                if kind and name not in found:
                    found[name] = Feature(kind, values)
        if seen >= _LOOKED_AT:
            break
    if not seen:
        raise DataError(f"{files[0]}: holds no record.")
    return dict(sorted(found.items()))


def scan_records(files: Sequence[Path], content: Sequence[str], columns: Sequence[str]) -> Scan:
    """Read all records once. `content` are features of bytes that stay where they are, `columns` are kept.

    Where contents lie is remembered of what was scanned last, as long as its files stay the same. Without
    any, nothing is: words would be held here beside whoever asked.

    Raises DataError for a file that is damaged and for what is no `tf.train.Example`, StorageError.
    """
    marks = []
    for path in files:
        try:
            state = path.stat()
        except OSError as error:
            raise StorageError(f"Cannot read {path}: {error.strerror}.") from None
        marks.append((str(path.absolute()), state.st_size, state.st_mtime_ns))
    scan = _remembered_scan if content else _scan
    return scan(tuple(marks), tuple(content), tuple(columns))


def records_in(path: Path, take: int = -1) -> Iterator[bytes]:
    """The records of a file, each with its checksums checked. Raises DataError and StorageError."""
    done = 0
    _require_lengths(path, take)
    try:
        dataset = tf.data.TFRecordDataset(str(path))
        for raw in dataset.take(take).prefetch(_AHEAD).as_numpy_iterator():
            done += 1
            yield raw
    except tf.errors.DataLossError:
        raise _damaged(path, done + 1) from None
    except tf.errors.OpError as error:
        raise StorageError(f"Cannot read {path}: {(error.message or str(error)).splitlines()[0]}") from None


def _require_lengths(path: Path, take: int) -> None:
    """Raises DataError where a record says that it is longer than its file: TensorFlow (2.21) would ask for
    as much memory, and end the process where there is none."""
    offset = number = 0
    try:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            while offset < size and number != take:
                number += 1
                file.seek(offset)
                offset += HEADER + int.from_bytes(file.read(8), "little") + FOOTER
                if offset > size:
                    raise _damaged(path, number)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from None


def _damaged(path: Path, number: int) -> DataError:
    if number == 1:
        return DataError(f"{path}: is no file of records (TFRecord), or its beginning is damaged.")
    return DataError(
        f"{path}: record {number} is damaged or cut off, and what follows it cannot be found. Write or copy "
        "the file again."
    )


def _scan(marks: tuple[_MARK, ...], content: tuple[str, ...], names: tuple[str, ...]) -> Scan:
    file_of, offsets, lengths = array("i"), array("q"), array("q")
    numbers: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in names}
    broken: dict[int, str] = {}
    passed = 0
    with byte_bar("Reading records", sum(size for _, size, _ in marks)) as show:
        for which, (path, size, _) in enumerate(marks):
            offset = 0
            for number, raw in enumerate(records_in(Path(path)), 1):
                features = _features(raw, Path(path), number)
                if problems := [found for name in content if (found := _content_problem(features, name))]:
                    broken[len(offsets)] = problems[0]
                for name, column in columns.items():
                    column.append(_one_or_all(features, name))
                file_of.append(which)
                offsets.append(offset)
                lengths.append(len(raw))
                numbers.append(number)
                offset += HEADER + len(raw) + FOOTER
                if number % _SHOWN_EVERY == 0:
                    show(passed + offset, None)
            passed += size
    records = Records(
        files=tuple(path for path, _, _ in marks),
        file_of=np.array(file_of, np.int32),
        offsets=np.array(offsets, np.int64),
        lengths=np.array(lengths, np.int64),
        features=content,
    )
    return Scan(records, columns, numbers, broken)


_remembered_scan = functools.lru_cache(maxsize=2)(_scan)


def _features(raw: bytes, path: Path, number: int) -> Any:
    """The map of features of a serialized `tf.train.Example`."""
    try:
        return tf.train.Example.FromString(raw).features.feature
    except DecodeError:
        raise DataError(
            f"{path}: record {number} is no tf.train.Example, which is what tlkit reads from such files."
        ) from None


def _values(feature: Any) -> tuple[str, list[Any]]:
    """The kind of a feature, "" where it has no values, and the values."""
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else []
    return (kind.removesuffix("_list") if values else ""), values


def _content_problem(features: Any, name: str) -> str | None:
    kind, values = _values(features[name]) if name in features else ("", [])
    if not values:
        return f"has no feature {name!r}"
    if kind != "bytes" or len(values) > 1:
        return f"has {len(values)} values of {kind} in {name!r}, not one of bytes"
    return None


def _one_or_all(features: Any, name: str) -> Any:
    values = _values(features[name])[1] if name in features else []
    values = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
    return values[0] if len(values) == 1 else values or None
