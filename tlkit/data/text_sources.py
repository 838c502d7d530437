"""From whatever holds texts to rows, and whether a source holds texts or pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tensorflow as tf

from tlkit import zoo
from tlkit.config import DataConfig, Task
from tlkit.data.conll import CONLL_ENDINGS, read_conll
from tlkit.data.elsewhere import brought_here
from tlkit.data.folder import PICTURE_ENDINGS, TEXT_ENDINGS, TEXTS, read_folder
from tlkit.data.record_sources import hold_texts, read_text_records
from tlkit.data.rows import Rows
from tlkit.data.sample import read_sample
from tlkit.data.sources import kind_of
from tlkit.data.split_files import find_split_files
from tlkit.data.table import TABLE_ENDINGS, read_parquet_head
from tlkit.data.text_arrays import read_text_arrays, read_text_dataset
from tlkit.data.text_table import read_split_text_tables, read_text_frame, read_text_table
from tlkit.errors import DataError, TlkitError

TEXT_READERS: dict[str, Callable[[Any, DataConfig, Task], Rows]] = {
    "folder": lambda path, spec, task: read_folder(path, spec, TEXTS),
    "table": read_text_table,
    "split_tables": read_split_text_tables,
    "records": read_text_records,
    "conll": read_conll,
    "frame": read_text_frame,
    "arrays": read_text_arrays,
    "tf_dataset": read_text_dataset,
    "sample": lambda name, spec, task: read_sample(zoo.get_sample(name)),
}
_PATHS = ("folder", "table", "split_tables", "records", "conll")
_LOOKED_AT = 100


def read_text_rows(source: object, spec: DataConfig, task: Task) -> Rows:
    """The rows of `source`: a path or an address, a sample's name, a DataFrame, (texts, labels), a
    `tf.data.Dataset`, or a data set of TFDS or Hugging Face.

    A folder that holds both tables and CoNLL files is read as CoNLL for `tokens`, else as tables.

    Raises DataError where it is none of these, does not exist or does not fit the task, and what its reader
    raises.
    """
    source = brought_here(source, spec)
    kind = kind_of_text(source, task)
    if kind == "conll" and task != "tokens":
        raise DataError(f"{source}: holds words with their tags: use --task tokens, received task={task}.")
    if kind in ("folder", "sample") and task in ("pair", "embed", "tokens"):
        raise DataError(
            f"{source}: holds single texts with a label; task={task} needs a table. See README.md."
        )
    value = Path(str(source)).expanduser() if kind in _PATHS else source
    return TEXT_READERS[kind](value, spec, task)


def kind_of_text(source: object, task: Task | None = None) -> str:
    """The key of `TEXT_READERS` for `source`. Raises DataError where it is none of these."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.is_file() and path.name.lower().endswith(CONLL_ENDINGS):
            return "conll"
        if path.is_dir() and find_split_files(path, CONLL_ENDINGS):
            tables = find_split_files(path, TABLE_ENDINGS)
            return "conll" if task == "tokens" or not tables else "split_tables"
    return kind_of(source)


def modality_of(source: object, spec: DataConfig) -> Literal["image", "text"]:
    """What `source` (or `spec.source`, where it is None) holds.

    Texts are: a table, but for one with the path column, one whose path column the config names, and one with
    names of pictures in its first row; CoNLL files; a folder whose first file by name ends in `.txt`; strings
    that are neither files nor named like pictures, pairs and lists of strings; a dataset of strings; records
    with a feature of texts and no picture; and a sample whose entry says so. Where this cannot be told,
    reading it says what is wrong.

    Raises what bringing the source to this machine raises.
    """
    source = brought_here(spec.source if source is None else source, spec)
    try:
        return "text" if _is_text(source, spec) else "image"
    except (TlkitError, OSError):
        return "image"


def _is_text(source: Any, spec: DataConfig) -> bool:
    kind = kind_of_text(source)
    if kind in ("table", "split_tables"):
        path = Path(str(source)).expanduser()
        one = path if kind == "table" else find_split_files(path, TABLE_ENDINGS)["train"]
        return _holds_texts(_first_row(one), spec)
    if kind == "records":
        return hold_texts(Path(str(source)).expanduser(), spec)
    if kind == "frame":
        return _holds_texts(source.head(1), spec)
    if kind == "folder":
        first = _first_file(Path(str(source)).expanduser())
        return first is not None and first.suffix.lower() in TEXT_ENDINGS
    if kind == "arrays":
        return _are_texts(source[0]) if len(source) in (2, 3) else False
    if kind == "tf_dataset":
        element = source.element_spec
        first = element[0] if isinstance(element, tuple) else None
        if isinstance(element, dict):
            first = element.get(spec.columns.text)
        specs = first if isinstance(first, tuple) else (first,)
        return all(getattr(one, "dtype", None) == tf.string for one in specs)
    return kind == "conll" or zoo.get_sample(str(source)).modality == "text"


def _holds_texts(table: pd.DataFrame | None, spec: DataConfig) -> bool:
    if table is None:
        return True  # the strict reader of texts can explain what is wrong with it
    columns = set(map(str, table.columns))
    if spec.columns.path in columns or "path" in spec.columns.model_fields_set:
        return False
    if {"text", "text_b", "tokens"} & spec.columns.model_fields_set:
        return True
    if {spec.columns.text, spec.columns.tokens} & columns:
        return True
    cells = table.astype(str).to_numpy().ravel()
    return not any(cell.strip().lower().endswith(tuple(PICTURE_ENDINGS)) for cell in cells)


def _first_row(path: Path) -> pd.DataFrame | None:
    """The header and first row of a table; None where it is not read as easily as that."""
    try:
        if path.name.lower().endswith((".parquet", ".pq")):
            return read_parquet_head(path)
        separator = "\t" if ".tsv" in path.name.lower() else ","
        return pd.read_csv(path, sep=separator, nrows=1, dtype=str, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError):
        return None


def _first_file(folder: Path) -> Path | None:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        shown = sorted(name for name in files if not name.startswith("."))
        if shown and Path(parent) != folder:
            return Path(parent, shown[0])
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
    return None


def _are_texts(values: Any) -> bool:
    """Whether the first few values are strings that name no picture, or pairs or lists of strings."""
    if isinstance(values, tf.Tensor):
        values = values.numpy()
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OSU":
        return False
    if not hasattr(values, "__len__") or isinstance(values, str | bytes | dict):
        return False
    items = values.tolist() if isinstance(values, pd.Series) else values
    chosen = [item for item in list(items[:_LOOKED_AT]) if item is not None]
    return bool(chosen) and all(_is_text_item(item) for item in chosen)


def _is_text_item(item: Any) -> bool:
    if isinstance(item, bytes):
        return True
    if isinstance(item, str):
        looks = not any(mark.isspace() for mark in item) and Path(item).suffix.lower() in PICTURE_ENDINGS
        return not looks and not _is_file(item)
    if isinstance(item, list | tuple) or (isinstance(item, np.ndarray) and item.dtype.kind in "OSU"):
        return len(item) > 0 and all(isinstance(word, str | bytes) for word in item)
    return isinstance(item, float) and item != item  # a missing text


def _is_file(text: str) -> bool:
    try:
        return len(text) < 4096 and Path(text).is_file()
    except (OSError, ValueError):
        return False
