"""Free the cache folder of what is not needed any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlkit.zoo.cache import home, storage_errors
from tlkit.zoo.fetch import cached_path
from tlkit.zoo.libraries import library_slots, preprocessing_of
from tlkit.zoo.presence import size_of
from tlkit.zoo.registry import entries
from tlkit.zoo.sample import samples
from tlkit.zoo.saved_model_files import hub_place
from tlkit.zoo.source import HubSource, UrlSource, WheelSource

_KINDS = ("wheels", "urls", "keras", "keras_hub", "hub")
_LOCK = ".lock"


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
    looking up stays. The own cache folders of Keras, KerasHub and tensorflow-hub are theirs to free.
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
    return [path for path in folders if any(item.name != _LOCK for item in path.iterdir())]


def _named() -> set[Path]:
    known = entries()
    found = {slot for entry in known for slot in library_slots(entry)}
    sources = [source for entry in known for source in (entry.source, *entry.mirrors)]
    before = [source for source in map(preprocessing_of, known) if source is not None]
    for source in (*sources, *before, *(sample.source for sample in samples())):
        if isinstance(source, WheelSource | UrlSource):
            found.add(cached_path(source).parent)
        elif isinstance(source, HubSource):
            found.add(hub_place(source.handle).parent)
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
    if not (slot / _LOCK).exists():  # copied here, and never locked
        slot.rmdir()
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
