"""Examples that are not files to read in place: brought to this machine's disk, in such files, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlkit.config import DataConfig
from tlkit.data import hugging_face, tfds
from tlkit.data.record_files import (
    compression_of,
    find_record_files,
    holds_records,
    is_pattern,
    is_record_file,
)
from tlkit.data.remote import copy_here
from tlkit.data.unpacking import unpack_records
from tlkit.places import address_of

# How a source begins → from the source to the folder of its records.
PREPARERS = {
    tfds.PREFIX: tfds.prepare_tfds,
    hugging_face.PREFIX: hugging_face.rewrite_dataset,
}


def brought_here(source: Any, spec: DataConfig) -> Any:
    """`source`, or the path of the files that hold its examples.

    What is on an object store is copied; data sets of TFDS are prepared by TFDS; data sets of Hugging Face
    and compressed records are written as records that can be read one by one. All else stays as it is.

    Raises ConfigError, DataError, FetchError and StorageError, as those who do it.
    """
    if hugging_face.is_dataset(source):
        return str(hugging_face.rewrite_dataset(source))
    if not isinstance(source, str | Path) or not str(source).strip():
        return source
    text, path, address = str(source), Path(source).expanduser(), address_of(source)
    if address is not None:
        return brought_here(str(copy_here(address, spec.columns.path)), spec)
    try:
        return _prepared(text, path) or source
    except OSError:
        return source  # whoever reads it says what is wrong


def are_records(path: Path) -> bool:
    """Whether a path is a file of records, a folder with such files in it, or a pattern for some."""
    if path.is_dir():
        return holds_records(path)
    return is_record_file(path) if path.exists() else is_pattern(path)


def _prepared(text: str, path: Path) -> str | None:
    """The records that were made of a source; None where it is read as it is."""
    for prefix, prepare in PREPARERS.items():
        if text.startswith(prefix) and not path.exists():
            return str(prepare(text))
    if path.is_dir() and hugging_face.is_saved(path):
        return str(hugging_face.rewrite_dataset(text))
    if are_records(path) and any(map(compression_of, find_record_files(path).files)):
        return str(unpack_records(path))
    return None
