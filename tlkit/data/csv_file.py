"""CSV files of texts, read strictly: a broken quote would swallow the rows after it without a word."""

from __future__ import annotations

import csv
import gzip
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from tlkit.errors import DataError, StorageError

_LIMIT = threading.Lock()
_SHOWN = 40
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV or TSV file (`.gz` too) with a header, in UTF-8: every cell as the text that it is.

    The index holds the number of the line on which each row begins. Empty lines are no rows; cells that are
    missing at a row's end are None.

    Raises StorageError where it cannot be read, DataError with the line for a wrong encoding, broken quotes,
    and a row with more cells than the header.
    """
    text = read_utf8(path)
    separator = "\t" if path.name.lower().endswith((".tsv", ".tsv.gz")) else ","
    records = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str | None]] = []
    lines: list[int] = []
    header: list[str] = []
    line = 0
    with _no_field_limit(len(text)):
        try:
            for record in records:
                first, line = line + 1, records.line_num
                if not record:
                    continue
                if not header:
                    header = record
                    _require_separator(header, path)
                    continue
                if len(record) > len(header):
                    raise DataError(
                        f"{path}: line {first} has {len(record)} cells, the header has {len(header)}. Put "
                        'texts that hold the separator into quotes ("…").'
                    )
                rows.append([*record, *[None] * (len(header) - len(record))])
                lines.append(first)
        except csv.Error as error:
            raise DataError(f"{path}: {_explain(text, line + 1, records.line_num, str(error))}") from None
    if not header:
        raise DataError(f"{path}: the file is empty.")
    return pd.DataFrame(rows, columns=_unique(header), index=pd.Index(lines, dtype="int64"), dtype=object)


def read_utf8(path: Path) -> str:
    """The text of a file, unpacked where it ends in `.gz`; a byte order mark is dropped.

    Raises StorageError where it cannot be read, DataError with the line where it is not UTF-8.
    """
    try:
        raw = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        kind = " It looks like UTF-16." if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise DataError(
            f"{path}: line {line} is not UTF-8 text (byte 0x{raw[error.start]:02x}).{kind} Save it as UTF-8."
        ) from None
    except (OSError, EOFError) as error:
        raise StorageError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None


def _require_separator(header: list[str], path: Path) -> None:
    mark = next((mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]), None)
    if mark:
        raise DataError(f"{path}: the columns are separated by {mark!r}; save the table with commas.")


def _explain(text: str, first: int, last: int, problem: str) -> str:
    """Which line is to blame. A quote that is never closed is where its row begins, not at the file's end."""
    lines = _LINE_END.split(text)
    begin = lines[first - 1][:_SHOWN] if first <= len(lines) else ""
    if "unexpected end of data" in problem:
        return f"a quote on line {first} is never closed: {begin!r}."
    span = f"line {first}" if last <= first else f"lines {first} to {last}"
    return (
        f'broken quotes on {span}: {begin!r}. A quote inside a quoted cell is written twice (""), and a cell '
        "with a quote is quoted as a whole."
    )


def _unique(names: list[str]) -> list[str]:
    """Column names; of equal ones, the later ones with a number."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        unique.append(f"{name}.{seen[name]}" if seen[name] else name)
    return unique


@contextmanager
def _no_field_limit(length: int) -> Iterator[None]:
    """The csv module refuses cells over 131,072 characters; its limit belongs to the whole process."""
    with _LIMIT:
        before = csv.field_size_limit(max(length, 1))
        try:
            yield
        finally:
            csv.field_size_limit(before)
