"""The folder of all tables of features: what is there, and what has to go."""

from __future__ import annotations

import json
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.errors import StorageError
from tlkit.features.table import ABOUT
from tlkit.features.users import remove_unused
from tlkit.zoo.cache import home
from tlkit.zoo.users import is_used


@dataclass(frozen=True)
class StoredTable:
    """A table on the disk. `used` is when it was opened last, in seconds since 1970; `size` is in bytes."""

    key: str
    path: Path
    size: int
    used: float
    about: dict[str, Any]

    @property
    def in_use(self) -> bool:
        """Whether a process has it open."""
        return is_used(self.path)


def features_folder() -> Path:
    """Where tables are. It may not exist yet."""
    return home() / "features"


def stored_tables() -> list[StoredTable]:
    """Every table, the one that was not used for longest first."""
    found = []
    for path in features_folder().glob("*/"):
        with suppress(OSError):  # another process has removed it since
            found.append(_look_at(path))
    return sorted(found, key=lambda table: table.used)


def make_room(needed: int, limit: int, keep: Path | None = None) -> None:
    """Remove tables that were not used for longest until `needed` more bytes stay below `limit`.

    `keep` is not removed, nor what a process has open.

    Raises:
        StorageError: There is not enough room, on the disk or below the limit. Nothing was removed, unless
            another process opened, meanwhile, what was to be removed as well.
    """
    while gone := find_room(needed, limit, keep):
        removed = [table for table in gone if remove_unused(table.path)]
        if not removed:
            raise StorageError(
                f"{gone[0].path} cannot be removed to make room for {needed:,} bytes of features. "
                "Raise cache.limit, or use cache.mode=off"
            )


def find_room(needed: int, limit: int, keep: Path | None = None) -> list[StoredTable]:
    """The tables that `make_room` would remove. Raises what it raises."""
    if not needed:
        return []
    tables = stored_tables()
    total = sum(table.size for table in tables)
    gone = []
    for table in tables:
        if total + needed <= limit:
            break
        if table.path != keep and not table.in_use:
            gone.append(table)
            total -= table.size
    if total + needed > limit:
        raise StorageError(
            f"{needed:,} bytes of features do not fit below the limit of {limit:,} beside {total:,} in use. "
            "Raise cache.limit, or use cache.mode=off"
        )
    folder = features_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError(
            f"The feature cache {folder} cannot be used: {error.strerror or error}. "
            "Set TLKIT_HOME to another folder, or use cache.mode=memory or off"
        ) from error
    free += sum(table.size for table in gone)
    if free < needed:
        raise StorageError(
            f"{needed:,} bytes of features need more room than the {free:,} bytes that are free at {folder}. "
            "Set TLKIT_HOME to another folder, or use cache.mode=off"
        )
    return gone


def clear() -> tuple[int, int]:
    """Remove every table that no process has open: how many, and how many bytes."""
    gone = [table for table in stored_tables() if remove_unused(table.path)]
    return len(gone), sum(table.size for table in gone)


def _look_at(path: Path) -> StoredTable:
    size = sum(_size(file) for file in path.glob("*"))
    about: dict[str, Any] = {}
    used = path.stat().st_mtime
    with suppress(OSError, ValueError):
        given = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        about = given if isinstance(given, dict) else {}
        used = (path / ABOUT).stat().st_mtime
    return StoredTable(path.name, path, size, used, about)


def _size(file: Path) -> int:
    """Bytes of a file; of one that is gone since it was listed, as temporary files are, none."""
    try:
        status = file.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
