"""Use what was checked: a copy that is hashed as it is made, where nobody else can write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlkit.errors import FetchError, StorageError, TlkitError
from tlkit.zoo.cache import Progress
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.fetch import expected_hash_at, fetch_weights
from tlkit.zoo.hashing import hash_of_copy


@contextmanager
def open_weights(entry: ZooEntry, progress: Progress | None = None) -> Iterator[Path]:
    """The weights of `entry` (see `fetch_weights`), for reading: `with open_weights(entry) as path: …`.

    It is a private copy of exactly the bytes whose hash was checked. Only a folder of the user's own that has
    no `sha256` is used where it is. Raises as `fetch_weights` does.
    """
    path = fetch_weights(entry, progress)
    sha256 = expected_hash_at(entry, path)
    if sha256 is None and path.is_dir():
        yield path
        return
    with open_copy(path, sha256) as copy:
        yield copy


@contextmanager
def open_copy(path: Path, sha256: str | None) -> Iterator[Path]:
    """A copy of a file or folder in a new folder that is this user's alone, with the hash `sha256` if given.

    A file in a cache folder can be changed by whoever may write there, between the check of its hash, or of
    what is in it, and the library that opens it again. The copy is hashed as it is made, so there is no
    between; it goes away at the end of the `with`. Messages of errors raised inside name `path`. Raises
    FetchError when the hash is another, StorageError when there is no room for the copy.
    """
    with tempfile.TemporaryDirectory(prefix="tlkit-") as folder:  # only its owner may enter it
        copy = Path(folder) / path.name
        _copy(path, copy, sha256)
        try:
            yield copy
        except TlkitError as error:
            error.args = tuple(str(part).replace(str(copy), str(path)) for part in error.args)
            raise


def _copy(path: Path, copy: Path, sha256: str | None) -> None:
    try:
        received = hash_of_copy(path, copy)
    except FileNotFoundError as error:
        raise FetchError(f"{path} went away while it was read: {error.filename}") from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be copied to {copy.parent}, where it is used from: {error.strerror or error}. "
            "Free some space or set TMPDIR to another folder"
        ) from error
    if sha256 not in (None, received):
        raise FetchError(
            f"{path} was changed after it was checked: it has sha256 {received} instead of {sha256}. "
            "Find out who may write to that folder, then fetch again"
        )
