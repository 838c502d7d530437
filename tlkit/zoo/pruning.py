"""Free the cache folder of what is not needed any more."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlkit.zoo.cache import home, storage_errors
from tlkit.zoo.entry import TextInput
from tlkit.zoo.fetch import cached_path
from tlkit.zoo.presence import size_of
from tlkit.zoo.registry import entries
from tlkit.zoo.sample import samples
from tlkit.zoo.saved_model_files import hub_place
from tlkit.zoo.source import HubSource, UrlSource, WheelSource

_KINDS = ("wheels", "urls", "hub")
_LOCK = ".lock"
_ABANDONED = 24 * 60 * 60  # seconds without a change


@dataclass(frozen=True)
class Pruned:
    """A part of the cache folder that was freed. `reason` is "unknown" (no entry of the zoo and no sample
    data names it) or "old" (others were used later)."""

    path: Path
    size: int
    reason: str


def prune(max_bytes: int | None = None, *, dry_run: bool = False) -> tuple[Pruned, ...]:
    """Free what no entry of the zoo names, then what was used least recently, until `max_bytes` are left.

    The zoo is tlkit's and the user's own, as `entries` reads them now. What another process is fetching or
    looking up stays, and so does a download of tensorflow-hub in which something changed within a day.
    `dry_run` only tells. Raises StorageError.
    """
    with storage_errors():
        there = {path: size_of(path) for path in _slots()}
        named = _named()
        chosen = [Pruned(path, size, "unknown") for path, size in there.items() if path not in named]
        left = sorted((path for path in there if path in named), key=lambda path: path.stat().st_mtime)
        total = sum(there[path] for path in left)
        for path in left if max_bytes is not None else ():
            if total <= (max_bytes or 0):
                break
            total -= there[path]
            chosen.append(Pruned(path, there[path], "old"))
        return tuple(one for one in chosen if dry_run or _free(one.path))


def _slots() -> list[Path]:
    """The folders that hold one fetched thing each, and more than a lock."""
    folders = [path for kind in _KINDS for path in sorted((home() / kind).glob("*/"))]
    whole = [path for path in folders if not _is_being_downloaded(path)]
    return [path for path in whole if any(item.name != _LOCK for item in path.iterdir())]


def _is_being_downloaded(slot: Path) -> bool:
    """Whether tensorflow-hub may be at it: it unpacks into `NAME.ID.tmp` and holds `NAME.lock`, beside that.

    Both stay where it was killed, so what nobody has touched for long is not taken for a download.
    """
    lock = slot.with_name(f"{slot.name.split('.')[0]}.lock")
    if slot.suffix != ".tmp" and not lock.exists():
        return False
    try:
        changed = max(
            path.lstat().st_mtime for path in (slot, *slot.rglob("*"), *lock.parent.glob(lock.name))
        )
    except FileNotFoundError:  # just finished, or broken off
        return True
    return time.time() - changed < _ABANDONED


def _named() -> set[Path]:
    found = set()
    known = entries()
    sources = [source for entry in known for source in (entry.source, *entry.mirrors)]
    inputs = [entry.input for entry in known]
    before = [takes.preprocessing for takes in inputs if isinstance(takes, TextInput)]
    for source in (*sources, *before, *(sample.source for sample in samples())):
        if isinstance(source, WheelSource | UrlSource):
            found.add(cached_path(source).parent)
        elif isinstance(source, HubSource):
            place = hub_place(source.handle)
            found |= {place, place.parent}  # what an archive held is in a folder of the slot
    return found


def _free(slot: Path) -> bool:
    """Delete what is in `slot`; the lock stays, because somebody may be waiting for it."""
    with _locked(slot) as alone:
        if not alone:
            return False
        for item in slot.iterdir():
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            elif item.name != _LOCK:
                item.unlink()
    if not (slot / _LOCK).exists():  # tensorflow-hub's: a folder and a file beside it
        slot.rmdir()
        slot.with_name(f"{slot.name}.descriptor.txt").unlink(missing_ok=True)
    return True


@contextmanager
def _locked(slot: Path) -> Iterator[bool]:
    import filelock

    if not (slot / _LOCK).exists():
        yield True
        return
    lock = filelock.FileLock(slot / _LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
