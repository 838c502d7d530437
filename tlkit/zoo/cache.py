"""The cache folder: where fetched weights and sample data live, each whole and with its hash known."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from tlkit.errors import FetchError, StorageError
from tlkit.places import require_local
from tlkit.zoo.hashing import hash_of

Progress = Callable[[str], None]


def home() -> Path:
    """The cache folder: `TLKIT_HOME`, or the platform's user cache folder. It may not exist yet.

    Raises ConfigError where `TLKIT_HOME` is an address of an object store.
    """
    chosen = os.environ.get("TLKIT_HOME")
    if not chosen:
        return Path(platformdirs.user_cache_dir("tlkit", appauthor=False))
    require_local(chosen, "The cache folder (TLKIT_HOME)")
    return Path(chosen).expanduser()


def offline() -> bool:
    """Whether `TLKIT_OFFLINE` forbids every download."""
    return os.environ.get("TLKIT_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def forbidden(what: str, target: Path) -> FetchError:
    """The error for `what`, whose intact `target` is not there while `TLKIT_OFFLINE` forbids to fetch it."""
    there = "is damaged" if target.exists() else "is not"
    return FetchError(
        f"{what} {there} in the cache folder {home()} and TLKIT_OFFLINE forbids downloads: unset it, or "
        "fetch on a connected machine and copy that folder"
    )


def keep(target: Path, sha256: str | None, make: Callable[[Path], Path]) -> Path:
    """The file or folder `target` of the cache folder, intact: what is there, or what `make` makes anew.

    `make` is given an empty folder, and gives the path in it of what becomes `target`. What is in the cache
    is whole: it is made beside its place and renamed, and its hash is checked at every call; a damaged copy
    is replaced as soon as there is a better one. Two processes that ask at once wait for each other. Raises
    what `make` raises, and StorageError.
    """
    import filelock  # here, because it takes as long to import as the whole zoo to read

    with storage_errors():
        if is_intact(target, sha256):
            with suppress(OSError):  # a cache that may only be read keeps no record of its use
                os.utime(target.parent)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.parent / ".lock"):
            if not is_intact(target, sha256):
                _make(target, sha256, make)
        return target


def is_intact(target: Path, sha256: str | None) -> bool:
    """Whether `target` is in the cache folder with the right hash: `sha256`, or else the one that it had when
    it was put there."""
    expected = expected_hash(target, sha256)
    if expected is None or not target.exists():
        return False
    try:
        return hash_of(target) == expected
    except FetchError:  # a name in it that cannot be hashed was not there when it was put here
        return False


def expected_hash(target: Path, sha256: str | None) -> str | None:
    """The hash that `target` must have: `sha256`, or the one that was noted beside it, if there is one."""
    note = note_of(target)
    return sha256 or (note.read_text(encoding="ascii", errors="replace").strip() if note.is_file() else None)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the operating system's errors into StorageErrors that name the cache folder."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The cache folder {home()} cannot be used: {error.strerror or error}. "
            "Free some space or set TLKIT_HOME to another folder"
        ) from error


@contextmanager
def announced(progress: Progress | None, line: str) -> Iterator[None]:
    """Say what begins, and show that it goes on: a spinner, or one line for `progress`."""
    if progress is not None:
        progress(line)
        yield
        return
    from tlkit.progress import spinner  # rich costs a tenth of a second, and listing the zoo needs none

    print(line, file=sys.stderr, flush=True)
    with spinner(line):
        yield


def _make(target: Path, sha256: str | None, make: Callable[[Path], Path]) -> None:
    for abandoned in target.parent.glob(".fetch-*"):  # the lock is ours: whoever made these was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
        made = make(Path(scratch))
        (Path(scratch) / "hash").write_text(f"{hash_of(made)}\n", encoding="ascii")
        (Path(scratch) / "hash").replace(note_of(target))
        if target.is_dir():  # a folder that is not empty cannot be replaced in one step
            target.rename(Path(scratch) / "damaged")
        made.replace(target)


def note_of(target: Path) -> Path:
    """The file beside `target` that has its hash, for whoever names none."""
    return target.with_name(f".{target.name}.sha256")
