"""Data sets that were copied or rewritten into the cache folder: each whole, with a note of what it is."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.zoo.cache import home, storage_errors
from tlkit.zoo.users import is_used, use

ABOUT = "about.json"
_KEY_DIGITS = 24
_QUIET_SECONDS = 2.0


@dataclass(frozen=True)
class StoredDataset:
    """A data set on the disk. `used` is when it was asked for last, in seconds since 1970; `size` is in
    bytes; `about` has the `source` that it is a copy of."""

    key: str
    path: Path
    size: int
    used: float
    about: dict[str, Any]

    @property
    def data(self) -> Path:
        """The folder with the data."""
        return self.path / str(self.about["name"])

    @property
    def in_use(self) -> bool:
        """Whether a process reads it."""
        return is_used(self.path)


def datasets_folder() -> Path:
    """Where data sets are. It may not exist yet."""
    return home() / "datasets"


def keep_dataset(identity: object, name: str, about: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder `name` with a data set in it: what is there for this `identity`, or what `make` makes anew.

    It is made beside its place and renamed, so it is there whole or not at all, and stays until this process
    ends. Two processes that ask at once wait for each other. One whose files are not as many and as large as
    they were is made anew.

    Args:
        identity: What makes the data what it is, as JSON can hold it: an address, versions, sizes.
        name: What the folder with the data is called.
        about: What `stored_datasets` says of it.
        make: Is given that folder, empty, and fills it.

    Raises what `make` raises, and StorageError.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:_KEY_DIGITS]
    place = datasets_folder() / key
    if not os.access(place.parent, os.W_OK) and _is_whole(place):
        return place / name  # where nothing can be written, nothing is removed either
    with storage_errors(), one_at_a_time(key, str(about.get("source", name))):
        if not _is_whole(place):
            _make(place, name, about, make)
        hold(place)
        with suppress(OSError):
            os.utime(place / ABOUT)
    return place / name


def find_dataset(source: str) -> StoredDataset | None:
    """The copy of `source` that was used last, which then stays until this process ends; None: there is none.

    Raises StorageError.
    """
    for each in reversed(stored_datasets()):
        if each.about.get("source") == source:
            with storage_errors(), one_at_a_time(each.key, source):
                if _is_whole(each.path):
                    hold(each.path)
                    return each
    return None


def stored_datasets() -> list[StoredDataset]:
    """Every data set, the one that was not used for longest first."""
    found = []
    for path in datasets_folder().glob("*/"):
        with suppress(OSError, ValueError, KeyError):  # one that is being made, or removed
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
            found.append(
                StoredDataset(path.name, path, about["bytes"], (path / ABOUT).stat().st_mtime, about)
            )
    return sorted(found, key=lambda each: each.used)


def clear_datasets() -> tuple[int, int]:
    """Remove every data set that no process reads, and what was left half-made: how many data sets, and how
    many bytes they had."""
    import filelock

    gone = []
    for each in stored_datasets():
        with suppress(filelock.Timeout, OSError), filelock.FileLock(_lock_of(each.key), timeout=0):
            if not each.in_use:
                (each.path / ABOUT).unlink()  # without it, it counts as not there
                shutil.rmtree(each.path, ignore_errors=True)
                gone.append(each)
    for path in datasets_folder().glob("*/"):  # of processes that were killed
        key = path.name.removeprefix(".").partition("-")[0]
        with suppress(filelock.Timeout, OSError), filelock.FileLock(_lock_of(key), timeout=0):
            if not (path / ABOUT).is_file():
                shutil.rmtree(path, ignore_errors=True)
    return len(gone), sum(each.size for each in gone)


@functools.cache
def hold(place: Path) -> Any:
    """Have others see, until this process ends, that it reads the data set at `place`, whose lock it has."""
    return use(place)


@contextmanager
def one_at_a_time(key: str, what: str) -> Iterator[None]:
    """Only one process at a time is inside with this `key`; one that waits says that it is for `what`.

    Raises StorageError where there is no place for the lock.
    """
    import filelock  # here, because it takes as long to import as the whole zoo to read

    with storage_errors():
        datasets_folder().mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(_lock_of(key))
        try:
            lock.acquire(timeout=_QUIET_SECONDS)
        except filelock.Timeout:
            from tlkit.progress import make_console  # as long, again

            line = f"Waiting for another process, which is making a copy of {what}"
            make_console().print(line, highlight=False, soft_wrap=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(place: Path, name: str, about: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    for abandoned in place.parent.glob(f".{place.name}-*"):  # the lock is ours: whoever made these was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as scratch:
        made = Path(scratch) / "made"
        (made / name).mkdir(parents=True)
        make(made / name)
        note = {**about, "name": name, **_sizes(made / name)}
        (made / ABOUT).write_text(json.dumps(note, default=str), encoding="utf-8")
        made.replace(place)


def _is_whole(place: Path) -> bool:
    """Whether the files at `place` are as many and as large as they were made: a machine that crashes may
    keep their names, and lose what is in them."""
    try:
        about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
        return all(about[key] == value for key, value in _sizes(place / about["name"]).items())
    except (OSError, ValueError, KeyError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _lock_of(key: str) -> Path:
    return datasets_folder() / f".{key}.lock"
