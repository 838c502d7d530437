"""Say what a file is that was given for weights and is none: by its first bytes, nothing of it is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

_MAGIC = {
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a pointer of Git LFS: the file itself is not there yet (git lfs pull)",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"GGUF": "a GGUF file",
    b"PK\x03\x04": "a damaged zip archive",
}


def what_it_is(path: Path) -> str:
    """A few words for the file at `path`, to follow "is". Raises OSError where it cannot be read."""
    if path.is_dir():
        return "a folder"
    with path.open("rb") as file:
        head = file.read(64)
        file.seek(0)
        if zipfile.is_zipfile(file):
            return _zip(file)
        file.seek(0)
        if head.startswith(b"\x93NUMPY"):
            return _numpy(file)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a pickle, which could run code"
    lower = head.lstrip().lower()
    known = (words for magic, words in _MAGIC.items() if head.startswith(magic) or lower.startswith(magic))
    return next(known, "no file of a kind that tlkit knows")


def _zip(file: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            for name in (name for name in names if name.endswith(".npy")):
                with archive.open(name) as member:
                    if "pickle" in (words := _numpy(member)):
                        return words
            if any(name.endswith(".npy") for name in names):
                return "a numpy file"
            return "a PyTorch file" if any(name.endswith("data.pkl") for name in names) else "a zip archive"
    except (zipfile.BadZipFile, RuntimeError, EOFError):
        return "a damaged zip archive"


def _numpy(file: IO[bytes]) -> str:
    import numpy as np  # here: listing the zoo needs none of it

    try:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        dtype = read(file)[2]
    except (ValueError, SyntaxError, EOFError):
        return "a damaged numpy file"
    objects = " of Python objects, which is a pickle and could run code"
    return f"a numpy file{objects if dtype.hasobject else ''}"
