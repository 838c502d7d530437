"""Data sets that were copied or rewritten into the cache folder: each whole, with a note of what it is."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.zoo.cache import home, storage_errors

ABOUT, USERS = "about.json", "users"
_KEY_DIGITS = 24


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
    def in_use(self) -> bool:
        """Whether a process reads it."""
        return any(not _is_free(lock) for lock in (self.path / USERS).glob("*"))


def datasets_folder() -> Path:
    """Where data sets are. It may not exist yet."""
    return home() / "datasets"


def keep_dataset(identity: object, name: str, about: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder `name` with a data set in it: what is there for this `identity`, or what `make` makes anew.

    It is made beside its place and renamed, so it is there whole or not at all, and stays until this process
    ends. Two processes that ask at once wait for each other.

    Args:
        identity: What makes the data what it is, as JSON can hold it: an address, versions, sizes.
        name: What the folder with the data is called.
        about: What `stored_datasets` says of it.
        make: Is given that folder, empty, and fills it.

    Raises what `make` raises, and StorageError.
    """
    import filelock  # here, because it takes as long to import as the whole zoo to read

    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:_KEY_DIGITS]
    place = datasets_folder() / key
    with storage_errors():
        place.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(_lock_of(place)):
            if not (place / ABOUT).is_file():
                _make(place, name, about, make)
            hold(place)
            with suppress(OSError):
                os.utime(place / ABOUT)
    return place / name


def stored_datasets() -> list[StoredDataset]:
    """Every data set, the one that was not used for longest first."""
    found = []
    for path in datasets_folder().glob("*/"):
        with suppress(OSError, ValueError):  # one that is being made, or removed
            about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            found.append(StoredDataset(path.name, path, size, (path / ABOUT).stat().st_mtime, about))
    return sorted(found, key=lambda each: each.used)


def clear_datasets() -> tuple[int, int]:
    """Remove every data set that no process reads: how many, and how many bytes."""
    import filelock

    gone = []
    for each in stored_datasets():
        with suppress(filelock.Timeout, OSError), filelock.FileLock(_lock_of(each.path), timeout=0):
            if not each.in_use:
                (each.path / ABOUT).unlink()  # without it, it counts as not there
                shutil.rmtree(each.path, ignore_errors=True)
                gone.append(each)
    return len(gone), sum(each.size for each in gone)


@functools.cache
def hold(place: Path) -> Any:
    """Have others see, until this process ends, that it reads the data set at `place`."""
    import filelock

    users = place / USERS
    users.mkdir(exist_ok=True)
    lock = filelock.FileLock(users / f"{os.getpid()}-{secrets.token_hex(4)}", thread_local=False)
    lock.acquire()
    return lock


def _make(place: Path, name: str, about: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    for abandoned in place.parent.glob(f".{place.name}-*"):  # the lock is ours: whoever made these was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as scratch:
        made = Path(scratch) / "made"
        (made / name).mkdir(parents=True)
        make(made / name)
        (made / ABOUT).write_text(json.dumps({**about, "name": name}, default=str), encoding="utf-8")
        made.replace(place)


def _lock_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


def _is_free(lock: Path) -> bool:
    import filelock

    try:
        with filelock.FileLock(lock, timeout=0):
            return True
    except (filelock.Timeout, OSError):
        return False
