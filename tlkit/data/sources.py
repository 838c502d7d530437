"""From whatever holds the examples to rows: which reader reads what."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from tlkit import zoo
from tlkit.config import DataConfig
from tlkit.data.arrays import read_arrays, read_tf_dataset
from tlkit.data.elsewhere import PREPARERS, are_records, brought_here
from tlkit.data.folder import read_folder
from tlkit.data.hugging_face import is_dataset, is_saved
from tlkit.data.record_sources import read_records
from tlkit.data.rows import Rows
from tlkit.data.sample import read_sample
from tlkit.data.split_files import find_split_files
from tlkit.data.table import (
    TABLE_ENDINGS,
    read_frame,
    read_split_tables,
    read_table,
)
from tlkit.errors import DataError, StorageError
from tlkit.places import address_of

READERS: dict[str, Callable[[Any, DataConfig], Rows]] = {
    "folder": read_folder,
    "table": read_table,
    "split_tables": read_split_tables,
    "records": read_records,
    "frame": read_frame,
    "arrays": read_arrays,
    "tf_dataset": read_tf_dataset,
    "sample": lambda name, spec: read_sample(zoo.get_sample(name)),
}
PATHS = ("folder", "table", "split_tables", "records")
ELSEWHERE = "elsewhere"  # of another kind once it is here


def read_rows(source: object, spec: DataConfig) -> Rows:
    """The rows of `source`: a path or an address, a sample's name, a DataFrame, (inputs, labels), a
    `tf.data.Dataset`, or a data set of TFDS or Hugging Face.

    Raises DataError where it is none of these or does not exist, and what its reader raises.
    """
    source = brought_here(source, spec)
    kind = kind_of(source)
    return READERS[kind](Path(str(source)).expanduser() if kind in PATHS else source, spec)


def kind_of(source: object) -> str:
    """The key of `READERS` for `source`, or `ELSEWHERE`. An existing path wins over a sample's name."""
    if source is None or (isinstance(source, str) and not source.strip()):
        raise DataError("No data was given: set data.source to a folder, a table or a sample's name.")
    if isinstance(source, str | Path):
        return _kind_of_path(str(source))
    if isinstance(source, pd.DataFrame):
        return "frame"
    if isinstance(source, tf.data.Dataset):
        return "tf_dataset"
    if isinstance(source, tuple | list):
        return "arrays"
    if is_dataset(source):
        return ELSEWHERE
    raise DataError(
        f"Cannot read examples from {type(source).__name__}. Expected a path, a sample's name, a DataFrame, "
        "(inputs, labels), a tf.data.Dataset, or a data set of Hugging Face."
    )


def _kind_of_path(text: str) -> str:
    path = Path(text).expanduser()
    samples = [entry.name for entry in zoo.samples()]
    if address_of(text) is not None:
        return ELSEWHERE
    try:
        if path.is_dir() and is_saved(path):
            return ELSEWHERE
        if path.is_dir() and find_split_files(path, TABLE_ENDINGS):
            return "split_tables"
        if are_records(path):
            return "records"
        if path.is_dir():
            return "folder"
        if path.exists():
            if path.name.lower().endswith(TABLE_ENDINGS):
                return "table"
            raise DataError(
                f"{text}: neither a folder nor a table. Expected an ending of {', '.join(TABLE_ENDINGS)}, "
                "or .tfrecord."
            )
    except OSError as error:
        raise StorageError(f"Cannot read {text}: {error.strerror}.") from None
    if text.startswith(tuple(PREPARERS)):
        return ELSEWHERE
    if text in samples:
        return "sample"
    nearest = difflib.get_close_matches(text, samples, n=1)
    hint = f" Did you mean the sample {nearest[0]!r}?" if nearest else f" Samples: {', '.join(samples)}."
    raise DataError(f"{text}: no such file or folder.{hint}")
