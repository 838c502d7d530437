"""Texts to predict out of files: tables, text files, and lines of standard input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tlkit.data.csv_file import read_csv
from tlkit.data.table import TABLE_ENDINGS, read_parquet, require_column
from tlkit.data.text_table import parse_list
from tlkit.errors import ConfigError, DataError
from tlkit.places import require_local
from tlkit.workflows.run import Run

STANDARD_INPUT = "-"
TEXT_ENDINGS = (".txt", ".text", ".md")


def read_text_inputs(
    run: Run,
    names: Sequence[str] = (),
    *,
    texts: Sequence[str] = (),
    texts_b: Sequence[str] = (),
    column: str | None = None,
    column_b: str | None = None,
    lines: Iterable[str] = (),
) -> list[Any]:
    """What `predict_run` takes, for a run on texts.

    Args:
        run: The run.
        names: Tables (a text per row), `.txt` files (one text each), folders of them, or `-` for `lines`.
        texts: Texts themselves.
        texts_b: For `pair`, the second text of each.
        column: The column of the tables. None: what the run's config says.
        column_b: For `pair`, the column of the second texts.
        lines: One text per line; for `pair` two, with a tab between them.

    Raises:
        ConfigError: The second texts do not fit the task or the first ones.
        DataError: A file is not there, or of another kind, or has no such column.
    """
    pair = run.config.task == "pair"
    if (texts_b or column_b) and not pair:
        raise ConfigError(f"A second text is for task pair; this run's task is {run.config.task}.")
    if pair and len(texts) != len(texts_b):
        raise ConfigError(
            "This run takes pairs: give a --text-b for every --text, "
            f"received {len(texts)} and {len(texts_b)}."
        )
    given: list[Any] = list(zip(texts, texts_b, strict=True)) if pair else list(texts)
    for name in names:
        if name == STANDARD_INPUT:
            stripped = [line.rstrip("\r\n") for line in lines]
            given += [tuple(line.split("\t")) for line in stripped] if pair else stripped
        else:
            given += _read_file(run, Path(name), column, column_b)
    return given


def _read_file(run: Run, path: Path, column: str | None, column_b: str | None) -> list[Any]:
    require_local(path, "An input")
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.name.lower().endswith(TEXT_ENDINGS))
        if not files:
            raise DataError(f"{path}: the folder holds no {TEXT_ENDINGS[0]} file.")
        return list(files)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. A text itself goes after --text.")
    if path.name.lower().endswith(TABLE_ENDINGS):
        return _read_table(run, path, column, column_b)
    if path.name.lower().endswith(TEXT_ENDINGS) and run.config.task != "pair":
        return [path]
    kinds = "a table" if run.config.task == "pair" else "a table, a .txt file"
    raise DataError(f"{path}: neither {kinds} ({', '.join(TABLE_ENDINGS)}) nor - for standard input.")


def _read_table(run: Run, path: Path, column: str | None, column_b: str | None) -> list[Any]:
    frame = read_parquet(path) if path.name.lower().endswith((".parquet", ".pq")) else read_csv(path)
    columns = run.config.data.columns
    if (
        run.config.task == "tokens"
        and (column or columns.tokens) == columns.tokens
        and columns.tokens in frame
    ):
        return [parse_list(cell) for cell in frame[columns.tokens]]
    first = _column(frame, column or columns.text, "--column", path)
    if run.config.task != "pair":
        return first
    return list(zip(first, _column(frame, column_b or columns.text_b, "--column-b", path), strict=True))


def _column(frame: pd.DataFrame, name: str, option: str, path: Path) -> list[Any]:
    require_column(frame, name, option, str(path))
    return [None if pd.isna(value) else value for value in frame[name]]
