"""Words with their tags, one a line, an empty line between sentences: CoNLL files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tlkit.config import DataConfig, Task
from tlkit.data.csv_file import read_utf8
from tlkit.data.rows import Rows, Text, short_name
from tlkit.data.split_files import find_split_files
from tlkit.errors import DataError

CONLL_ENDINGS = (".conll", ".bio", ".iob", ".iob2")
_DOCUMENT = "-DOCSTART-"


def read_conll(path: Path, spec: DataConfig, task: Task) -> Rows:
    """The sentences of a file, or of a folder with a file for each split.

    A line holds a word and its tag, with a tab or spaces between them; of more columns the first and the last
    count. Lines that begin with `-DOCSTART-` are left out, and so are those that begin with `#` and have no
    tab, where others have. `spec` and `task` are those of all readers.

    Raises StorageError where a file cannot be read, DataError where it is not UTF-8 or holds no sentence.
    """
    files = find_split_files(path, CONLL_ENDINGS) if path.is_dir() else {"": path}
    texts: list[Text] = []
    tags: list[list[str]] = []
    names: list[str] = []
    splits: list[str] = []
    broken: dict[int, str] = {}
    for split, file in files.items():
        for first, lines in _sentences(read_utf8(file)):
            cells = [_cells(line) for line in lines]
            short = [first + number for number, line in enumerate(cells) if len(line) < 2]
            if short:
                broken[len(texts)] = f"line {short[0]} has a word without a tag, or a tag without a word"
            texts.append([line[0] for line in cells])
            tags.append([line[-1] for line in cells])
            names.append(f"{file.name}, line {first}" if split else f"line {first}")
            splits.append(split)
    if not texts:
        raise DataError(f"{path}: holds no sentence. Expected a word and its tag on each line.")
    return Rows(
        where=str(path),
        name=short_name(path.resolve().name.split(".")[0]),
        labels=pd.DataFrame({"label": pd.Series(tags, dtype=object)}),
        texts=texts,
        splits=np.array(splits, dtype=np.str_) if path.is_dir() else None,
        names=names,
        broken=broken,
    )


def _sentences(text: str) -> list[tuple[int, list[str]]]:
    """Number of its first line, and the lines, of each sentence."""
    found: list[tuple[int, list[str]]] = []
    is_open = False
    # Not splitlines(): a word may hold one of the rarer line ends.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if line.startswith("#") and "\t" not in line and "\t" in text:
            continue
        if not line.strip(" \t\r") or line.startswith(_DOCUMENT):
            is_open = False
        elif is_open:
            found[-1][1].append(line)
        else:
            found.append((number, [line]))
            is_open = True
    return found


def _cells(line: str) -> list[str]:
    cells = line.rstrip(" \r").split("\t") if "\t" in line else line.strip(" \r").split(" ")
    return [cell.strip(" ") for cell in cells if cell.strip(" ")]
