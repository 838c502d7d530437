"""Examples in folders: one folder per class, or `train`, `validation` and `test` folders of such."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from tlkit.config import DataConfig
from tlkit.data.rows import SPLIT_ALIASES, Note, Rows, short_name
from tlkit.errors import DataError, StorageError

# Names that promise a picture, whether or not tlkit reads that kind. Files without an ending count, too.
PICTURE_ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl"),
}
TEXT_ENDINGS = {".txt", ".text"}


@dataclass(frozen=True)
class Kind:
    """What a walk looks for: files with one of `endings`, or without any, are each a `noun`."""

    noun: str
    endings: frozenset[str]

    def fits(self, path: Path) -> bool:
        return path.suffix.lower() in self.endings or not path.suffix


PICTURES = Kind("picture", frozenset(PICTURE_ENDINGS))
TEXTS = Kind("text", frozenset(TEXT_ENDINGS))


@dataclass
class _Found:
    """What a walk over class folders collects."""

    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def read_folder(folder: Path, spec: DataConfig, kind: Kind = PICTURES) -> Rows:
    """The pictures or texts below `folder`: the name of the folder below it is the label, at any depth.

    With folders called `train` and `validation` (or `val`, `valid`, `dev`) or `test`, those are the splits
    and hold the class folders. Hidden files are ignored; files that do not look like pictures (or texts) are
    noted.

    Raises DataError where there are none or no class folders, StorageError without permission.
    """
    folders, loose = _children(folder)
    splits = _split_folders(folder, folders)
    found = _Found()
    for path in folders if splits else ():
        if path.name.lower() not in SPLIT_ALIASES:
            found.notes.append(Note(str(path), "is beside the split folders", "ignored"))
    for split, root in splits.items() if splits else [("", folder)]:
        inner, beside = _children(root)
        for path in beside:
            problem = "is not in a class folder" if kind.fits(path) else _no_fit(kind)
            found.notes.append(Note(str(path), problem, "ignored"))
        for class_folder in inner:
            _collect(class_folder, split, found, kind)
    if not found.paths:
        _raise_nothing_found(folder, folders, loose, found, kind)
    return Rows(
        where=str(folder),
        name=short_name(folder.resolve().name),
        labels=pd.DataFrame({"label": pd.Series(found.labels, dtype=object)}),
        paths=found.paths,
        splits=np.array(found.splits, dtype=np.str_) if splits else None,
        notes=tuple(found.notes),
        empty_classes=tuple(found.empty),
        hint="" if splits else _hint(folders),
    )


def _split_folders(folder: Path, folders: list[Path]) -> dict[str, Path]:
    """Split to folder; empty where `folder` holds class folders."""
    named = [path for path in folders if path.name.lower() in SPLIT_ALIASES]
    splits: dict[str, Path] = {}
    for path in named:
        split = SPLIT_ALIASES[path.name.lower()]
        if split in splits:
            raise DataError(
                f"{folder}: {splits[split].name!r} and {path.name!r} both mean the {split} split: keep one."
            )
        splits[split] = path
    only_splits = len(named) == len(folders)
    if splits and "train" not in splits and only_splits:
        names = ", ".join(path.name for path in named)
        raise DataError(f"{folder}: has split folders ({names}) but no 'train' folder.")
    # Two split names beside other folders are splits; a single one may well be a class called "test".
    return splits if "train" in splits and (only_splits or len(splits) > 1) else {}


def _collect(class_folder: Path, split: str, found: _Found, kind: Kind) -> None:
    before = len(found.paths)
    for path in _walk(class_folder, set()):
        if kind.fits(path):
            found.paths.append(os.path.abspath(path))
            found.labels.append(class_folder.name)
            found.splits.append(split)
        else:
            found.notes.append(Note(str(path), _no_fit(kind), "ignored"))
    if len(found.paths) == before:
        found.empty.append(f"{split}/{class_folder.name}" if split else class_folder.name)


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    """Every file below, sorted; links to folders are followed, each folder once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    folders, files = _children(folder)
    yield from files
    for path in folders:
        yield from _walk(path, seen)


def _children(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in `folder`, both sorted by name, without hidden ones."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise StorageError(f"Cannot read the folder {folder}: {error.strerror}.") from None
    return [path for path in paths if path.is_dir()], [path for path in paths if not path.is_dir()]


def _no_fit(kind: Kind) -> str:
    return f"is not a {kind.noun} by its name"


def _hint(folders: list[Path]) -> str:
    """Where the classes may be, when all folders lie in one."""
    if len(folders) != 1 or len(_children(folders[0])[0]) < 2:
        return ""
    return f" If the folders in it are the classes, use {folders[0]}."


def _raise_nothing_found(
    folder: Path, folders: list[Path], loose: list[Path], found: _Found, kind: Kind
) -> None:
    beside = sum(kind.fits(path) for path in loose)
    if not folders and not loose:
        raise DataError(
            f"{folder}: the folder is empty. Expected a folder per class with {kind.noun}s in it."
        )
    if beside:
        column = "path" if kind is PICTURES else "text"
        raise DataError(
            f"{folder}: {beside} {kind.noun}s lie in no class folder. "
            f"Expected a folder per class, or a table with a {column} and a label column."
        )
    example = (
        f" (the first of {len(found.notes)} other files is {found.notes[0].path})" if found.notes else ""
    )
    raise DataError(
        f"{folder}: no {kind.noun}s in {len(folders)} folders{example}. Expected a folder per class."
    )
