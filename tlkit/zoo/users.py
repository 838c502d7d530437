"""Who uses a folder in the cache: each process that does holds a lock in its `users/`."""

from __future__ import annotations

from pathlib import Path

USERS = "users"


def is_used(folder: Path) -> bool:
    """Whether a process uses the folder. The lock of one that died is free."""
    return any(not is_free(lock) for lock in (folder / USERS).glob("*"))


def is_free(lock: Path) -> bool:
    """Whether nobody holds a lock."""
    import filelock  # here, because it takes as long to import as the whole zoo to read

    try:
        with filelock.FileLock(lock, timeout=0):
            return True
    except (filelock.Timeout, OSError):
        return False
