"""Examples in a table: CSV, Parquet, or a DataFrame in Python."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet

from tlkit.config import DataConfig
from tlkit.data.rows import Note, Rows, list_some, parse_splits, short_name
from tlkit.data.split_files import find_split_files
from tlkit.errors import DataError, StorageError, suggest

TABLE_ENDINGS = (".csv", ".tsv", ".csv.gz", ".parquet", ".pq")


def read_table(path: Path, spec: DataConfig) -> Rows:
    """The rows of a CSV (or TSV) or Parquet file; relative paths are relative to its folder.

    Raises StorageError where it cannot be read, DataError for its content (see `read_frame`).
    """
    name = path.name.split(".")[0]
    return read_frame(read_any_table(path), spec, folder=path.parent, where=str(path), name=name)


def read_split_tables(folder: Path, spec: DataConfig) -> Rows:
    """The rows of a folder with a table for each split: `train.csv`, `validation.csv`, `test.csv`.

    Raises what `read_table` raises.
    """
    files = find_split_files(folder, TABLE_ENDINGS)
    frames = [read_any_table(path).assign(split=split) for split, path in files.items()]
    frame = pd.concat(frames, ignore_index=True)
    return read_frame(frame, spec, folder=folder, where=str(folder), name=folder.resolve().name)


def read_parquet(path: Path) -> pd.DataFrame:
    """The table in a Parquet file. Raises StorageError or DataError where there is none."""
    try:
        return pd.read_parquet(path)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from None
    except ValueError as error:
        raise _unreadable(path, error) from None


def read_parquet_head(path: Path) -> pd.DataFrame:
    """The first row of a Parquet file, without reading the others. Raises DataError where it is none."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            first = next(file.iter_batches(batch_size=1), None)
            return pd.DataFrame(columns=file.schema_arrow.names) if first is None else first.to_pandas()
    except ValueError as error:
        raise _unreadable(path, error) from None


def read_any_table(path: Path) -> pd.DataFrame:
    """The table in a CSV, TSV or Parquet file. Raises StorageError or DataError where there is none."""
    ending = path.name.lower()
    if ending.endswith((".parquet", ".pq")):
        return read_parquet(path)
    try:
        # As text: a label "007" or "NA" stays what it is.
        separator = "\t" if ending.endswith(".tsv") else ","
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as a table: {' '.join(str(error).split())}")


def read_frame(
    frame: pd.DataFrame,
    spec: DataConfig,
    folder: Path | None = None,
    where: str = "DataFrame",
    name: str = "frame",
) -> Rows:
    """The rows of a DataFrame, with the columns that `spec.columns` names; relative paths start at `folder`.

    A `split` column, where there is one, is honoured; rows with an empty split are left out.

    Raises DataError for an empty table, a missing column, a missing path or file, an unknown split.
    """
    frame = frame.reset_index(drop=True)
    frame.columns = frame.columns.map(str)
    labels = [spec.columns.label] if isinstance(spec.columns.label, str) else list(spec.columns.label)
    for column, key in [(spec.columns.path, "path"), *((label, "label") for label in labels)]:
        require_column(frame, column, f"data.columns.{key}", where)
    if frame.empty:
        raise DataError(f"{where}: the table has no rows.")
    paths = _resolve(frame[spec.columns.path], folder or Path(), where)
    splits = (
        parse_splits(frame["split"].tolist(), where) if "split" in frame and "split" not in labels else None
    )
    left_out = (
        [Note(paths[row], "has no split", "left out") for row in range(len(paths)) if not splits[row]]
        if splits is not None
        else []
    )
    return Rows(
        where=where,
        name=short_name(name),
        labels=frame[labels],
        paths=paths,
        splits=splits,
        weights=read_weights(frame, spec, where),
        extras=frame.drop(columns=[spec.columns.path, "split"], errors="ignore"),
        notes=tuple(left_out),
    )


def require_column(frame: pd.DataFrame, column: str, key: str, where: str) -> None:
    """Raises DataError where `column` is not there, with the nearest one."""
    if column in frame.columns:
        return
    names = list(frame.columns)
    separator = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
    if separator:
        raise DataError(f"{where}: the columns are separated by {separator!r}; save the table with commas.")
    nearest = suggest(column, names)
    nearest = nearest if nearest.startswith(" Did") else ""
    raise DataError(
        f"{where}: there is no column {column!r} ({key}).{nearest} Its columns: {list_some(names, 12)}."
    )


def read_weights(frame: pd.DataFrame, spec: DataConfig, where: str) -> npt.NDArray[np.float32] | None:
    """The weights of the rows, float32 (n,), where `spec.columns` names a column of them.

    Raises DataError where it is not there, or does not hold numbers that are at least 0.
    """
    column = spec.columns.weight
    if column is None:
        return None
    require_column(frame, column, "data.columns.weight", where)
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy("float32")
    wrong = [row for row in range(len(frame)) if not (np.isfinite(values[row]) and values[row] >= 0)]
    if wrong:
        named = [f"row {row + 1}: {str(frame[column].iloc[row])!r}" for row in wrong]
        raise DataError(
            f"{where}: column {column!r} (data.columns.weight) should hold numbers that are at least 0, "
            f"received {list_some(named)}."
        )
    return values


def _resolve(column: pd.Series, folder: Path, where: str) -> list[str]:
    """Absolute paths; every file must be there."""
    texts = ["" if pd.isna(value) else str(value).strip() for value in column]
    unnamed = [row + 1 for row, text in enumerate(texts) if not text]
    if unnamed:
        raise DataError(f"{where}: {len(unnamed)} rows have no path: row {list_some(unnamed)}.")
    paths = [os.path.abspath(folder / text) for text in texts]
    missing = [row for row, path in enumerate(paths) if not Path(path).exists()]
    if missing:
        named = [f"row {row + 1}: {texts[row]}" for row in missing]
        raise DataError(
            f"{where}: {len(missing)} of {len(paths)} files are missing ({list_some(named)}). "
            f"Paths are relative to {folder.resolve()}.{_found_below(folder, texts[missing[0]])}"
        )
    return paths


def _found_below(folder: Path, text: str) -> str:
    """Where a missing file is, if it is one folder down."""
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (below / text).is_file():
            return f" The first is in {below.name!r}: write {below.name}/{text} into the table."
    return ""
