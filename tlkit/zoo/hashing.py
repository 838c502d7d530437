"""sha256 of files and folders, and copies whose hash is that of the bytes that were copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tlkit.errors import FetchError

_CHUNK = 1 << 20


def hash_of(path: Path) -> str:
    """sha256 of a file or a folder."""
    return hash_of_folder(path) if path.is_dir() else hash_of_file(path)


def hash_of_file(path: Path) -> str:
    """sha256 of the content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_folder(folder: Path) -> str:
    """sha256 over the sorted lines `<sha256 of the file>  <path inside the folder>`, as sha256sum prints.

    Links to folders are not followed. Raises FetchError for a file whose name cannot stand in such a line.
    """
    return hash_of_list((name, hash_of_file(folder / name)) for name in names_in(folder))


def hash_of_copy(path: Path, to: Path) -> str:
    """Copy a file or a folder to `to`, which must not exist; the hash of what was written there.

    A folder's copy holds the files that its hash covers and nothing else: no links, no empty folders.
    """
    if not path.is_dir():
        return _copy_file(path, to)
    to.mkdir()
    return hash_of_list((name, _copy_file(path / name, to / name)) for name in names_in(path))


def names_in(folder: Path) -> list[str]:
    """The paths of the files in `folder`, relative to it, sorted. Raises as `hash_of_folder` does."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    odd = next((name for name in names if "\n" in name or "\r" in name), None)
    if odd is not None:  # two lines in the list could then be one file, or the other way round
        raise FetchError(f"{folder} holds a file with a line break in its name: {odd!r}")
    return names


def hash_of_list(files: Iterable[tuple[str, str]]) -> str:
    """The hash of a folder from the names (sorted) and the hashes of its files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in files)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _copy_file(path: Path, to: Path) -> str:
    to.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("rb") as source, to.open("xb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()
