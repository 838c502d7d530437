"""Which weights are on this machine: looked up by their places, without hashing and without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.fetch import Fetchable, cached_path
from tlkit.zoo.libraries import library_files, own_place
from tlkit.zoo.source import HubSource, KerasHubSource, NoSource


def kept_at(entry: ZooEntry) -> Path | None:
    """Where the weights of `entry` are on this machine; None where they would have to be downloaded.

    Those that Keras, KerasHub and tensorflow-hub download are looked for in the cache folder, and by name in
    the libraries' own.
    """
    return next((path for path in _places(entry) if path.exists()), None)


def works_offline(entry: ZooEntry) -> bool:
    """Whether the entry can be loaded now without a network: its weights are here, or it has none."""
    return isinstance(entry.source, NoSource) or kept_at(entry) is not None


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _places(entry: ZooEntry) -> Iterator[Path]:
    for source in (entry.source, *entry.mirrors):
        if isinstance(source, Fetchable):
            yield cached_path(source)
        elif isinstance(source, HubSource | KerasHubSource):
            local = Path(source.handle if isinstance(source, HubSource) else source.preset).expanduser()
            if local.exists():
                yield local
    yield from library_files(entry)
    theirs = own_place(entry)
    if theirs is not None:
        yield theirs
