"""Texts in a table: CSV, Parquet, or a DataFrame in Python."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tlkit.config import Columns, DataConfig, Task
from tlkit.data.csv_file import read_csv
from tlkit.data.rows import Note, Rows, Text, parse_splits, short_name
from tlkit.data.split_files import find_split_files
from tlkit.data.table import TABLE_ENDINGS, read_parquet, read_weights, require_column
from tlkit.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]+")
_ARRAY = re.compile(r"""['"]\s+['"]""")


def read_text_table(path: Path, spec: DataConfig, task: Task) -> Rows:
    """The rows of a CSV (or TSV) or Parquet file.

    Raises StorageError where it cannot be read, DataError for its content (see `read_text_frame`).
    """
    frame, names = _read_file(path)
    return read_text_frame(frame, spec, task, where=str(path), name=path.name.split(".")[0], names=names)


def read_split_text_tables(folder: Path, spec: DataConfig, task: Task) -> Rows:
    """The rows of a folder with a table for each split; see `find_split_files`.

    Raises what `read_text_table` raises.
    """
    frames, names = [], []
    for split, path in find_split_files(folder, TABLE_ENDINGS).items():
        frame, own = _read_file(path)
        frames.append(frame.assign(split=split))
        names += [f"{path.name}, {name}" for name in own]
    frame = pd.concat(frames, ignore_index=True)
    return read_text_frame(frame, spec, task, where=str(folder), name=folder.resolve().name, names=names)


def read_text_frame(
    frame: pd.DataFrame,
    spec: DataConfig,
    task: Task,
    where: str = "DataFrame",
    name: str = "frame",
    names: Sequence[str] | None = None,
) -> Rows:
    """The rows of a DataFrame, with the columns that `spec.columns` names for `task`.

    For `tokens` a cell is a list of words, a list written as JSON or Python does, or words with spaces
    between them; its tags likewise. For `embed` the label column may be missing. A `split` column, where
    there is one, is honoured; rows with an empty split are left out. `names` say how a person finds a row.

    Raises DataError for an empty table, a missing column, an unknown split.
    """
    names = [f"row {row + 1}" for row in range(len(frame))] if names is None else names
    frame = frame.reset_index(drop=True)
    frame.columns = frame.columns.map(str)
    content = content_columns(spec, task)
    labels = [spec.columns.label] if isinstance(spec.columns.label, str) else list(spec.columns.label)
    if task == "embed" and spec.columns.label == Columns().label and labels[0] not in frame:
        labels = []
    for column, key in [*content.items(), *((label, "label") for label in labels)]:
        require_column(frame, column, f"data.columns.{key}", where)
    if frame.empty:
        raise DataError(f"{where}: the table has no rows.")
    splits = (
        parse_splits(frame["split"].tolist(), where) if "split" in frame and "split" not in labels else None
    )
    left_out = (
        [Note(names[row], "has no split", "left out") for row in np.flatnonzero(splits == "").tolist()]
        if splits is not None
        else []
    )
    values = frame[labels]
    if task == "tokens":
        values = values.map(parse_list)
    return Rows(
        where=where,
        name=short_name(name),
        labels=values,
        texts=_texts([frame[column].tolist() for column in content], task),
        splits=splits,
        weights=read_weights(frame, spec, where),
        extras=frame.drop(columns=[*content, "split"], errors="ignore"),
        notes=tuple(left_out),
        names=names,
    )


def parse_list(value: Any) -> list[str]:
    """The words or tags of a cell."""
    if isinstance(value, list | tuple | np.ndarray):
        return [as_text(item) for item in value]
    text = as_text(value).strip()
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, _literal):
            try:
                items = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(items, list) and not any(isinstance(item, list | dict) for item in items):
                return [as_text(item) for item in items]
    return [word for word in _SPACE.split(text) if word]


def as_text(value: Any) -> str:
    """A cell as a text, "" where it is missing; bytes that are not UTF-8 show as U+FFFD."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):
        return ""
    return str(value)


def _literal(text: str) -> Any:
    if _ARRAY.search(text):  # an array as numpy prints it: Python would join its items into one
        return [first or second for first, second in re.findall(r"""'([^']*)'|"([^"]*)\"""", text)]
    return ast.literal_eval(text)


def content_columns(spec: DataConfig, task: Task) -> dict[str, str]:
    """Column to its key in the config."""
    columns = spec.columns
    if task == "tokens":
        return {columns.tokens: "tokens"}
    if task in ("pair", "embed"):
        if columns.text == columns.text_b:
            raise DataError(
                f"data.columns.text and data.columns.text_b are both {columns.text!r}: task={task} needs two."
            )
        return {columns.text: "text", columns.text_b: "text_b"}
    return {columns.text: "text"}


def _texts(columns: list[list[Any]], task: Task) -> list[Text]:
    if task == "tokens":
        return [parse_list(value) for value in columns[0]]
    if len(columns) == 2:
        return [(as_text(first), as_text(second)) for first, second in zip(*columns, strict=True)]
    return [as_text(value) for value in columns[0]]


def _read_file(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table, and how a person finds each of its rows."""
    if path.name.lower().endswith((".parquet", ".pq")):
        frame = read_parquet(path)
        return frame, [f"row {row + 1}" for row in range(len(frame))]
    frame = read_csv(path)
    return frame, [f"line {line}" for line in frame.index]
