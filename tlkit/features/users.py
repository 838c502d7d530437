"""Who has a table of features open: it may be removed while nobody has."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import filelock

from tlkit.zoo.users import is_used, use

_ENTRANCE = ".lock"  # beside the tables, because it has to outlive them; held for moments


def register(folder: Path) -> filelock.BaseFileLock:
    """Become a user of a table's folder, which is made where there is none. `unregister` what this gives.

    Nobody removes the folder meanwhile. Raises OSError where it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _entrance(folder):
        return use(folder)


def unregister(user: filelock.BaseFileLock) -> None:
    user.release(force=True)
    with suppress(OSError):
        Path(user.lock_file).unlink()


def remove_unused(folder: Path) -> bool:
    """Remove a table's folder, unless a process has it open. Whether it is gone."""
    with suppress(OSError), _entrance(folder):
        if not is_used(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _entrance(folder: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(folder.with_name(_ENTRANCE))
