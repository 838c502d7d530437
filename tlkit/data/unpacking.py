"""Compressed files of records, uncompressed once: in a compressed file none is found without reading all
before it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tlkit.data.record_files import compression_of, find_record_files, is_pattern, pattern_in
from tlkit.data.rows import list_some
from tlkit.errors import DataError, StorageError
from tlkit.progress import byte_bar
from tlkit.zoo.datasets import keep_dataset

_CHUNK = 1 << 20


def unpack_records(place: Path) -> Path:
    """The same files of records as at `place`, a file, a folder or a pattern, none of them compressed.

    Raises DataError where one is damaged or cut off, or two would have one name; StorageError.
    """
    files = find_record_files(place).files
    names = [path.stem if path.suffix.lower() in (".gz", ".gzip", ".zlib") else path.name for path in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{place}: several compressed files are called {list_some(twice)}: give them other names."
        )

    def make(folder: Path) -> None:
        for path, name in zip(files, names, strict=True):
            with (folder / name).open("wb") as target, byte_bar(f"Unpacking {path.name}", None) as show:
                for chunk in _unpacked(path):
                    target.write(chunk)
                    show(target.tell(), None)

    states = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    called = (place if place.is_dir() else place.parent).absolute().name or "data"
    folder = keep_dataset(["unpacked", states], called, {"source": str(place)}, make)
    if place.is_dir():
        return folder
    return pattern_in(folder, "*") if is_pattern(place) else folder / names[0]


def _unpacked(path: Path) -> Iterator[bytes]:
    """What is in a file, in pieces. Unlike TensorFlow, this looks at the checksum at the end of it."""
    kind = compression_of(path)
    try:
        with path.open("rb") as file:
            if kind == "ZLIB":
                yield from _inflated(file)
                return
            plain: gzip.GzipFile | BinaryIO = gzip.GzipFile(fileobj=file) if kind == "GZIP" else file
            while chunk := plain.read(_CHUNK):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut off ({error}). Write or copy it again.") from None
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from None


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    inflater = zlib.decompressobj()
    while not inflater.eof:
        packed = inflater.unconsumed_tail or file.read(_CHUNK)
        chunk = inflater.decompress(packed, _CHUNK)
        if not packed and not chunk:
            raise EOFError("it ends in the middle")
        yield chunk
