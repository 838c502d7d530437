"""Who uses a folder in the cache: each process that does holds a lock in its `users/`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import filelock

USERS = "users"


def use(folder: Path) -> filelock.BaseFileLock:
    """Become a user of the folder, until the lock is released or this process ends; what processes that have
    ended left there goes. To be called by one process at a time. Raises OSError."""
    import filelock  # here, because it takes as long to import as the whole zoo to read

    users = folder / USERS
    users.mkdir(parents=True, exist_ok=True)
    for other in users.glob("*"):
        if is_free(other):
            other.unlink(missing_ok=True)
    lock = filelock.FileLock(users / f"{os.getpid()}-{secrets.token_hex(4)}", thread_local=False)
    lock.acquire()
    return lock


def is_used(folder: Path) -> bool:
    """Whether a process uses the folder. The lock of one that died is free."""
    return any(not is_free(lock) for lock in (folder / USERS).glob("*"))


def is_free(lock: Path) -> bool:
    """Whether nobody holds a lock."""
    import filelock

    try:
        with filelock.FileLock(lock, timeout=0):
            return True
    except (filelock.Timeout, OSError):
        return False
