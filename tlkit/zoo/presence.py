"""Which weights are on this machine: looked up by their places, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tlkit.zoo.cache import home, is_intact
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.fetch import Fetchable, cached, cached_path, expected_hash_at
from tlkit.zoo.libraries import fits_size, library_files, own_place
from tlkit.zoo.source import HubSource, KerasHubSource, NoSource


def kept_at(entry: ZooEntry) -> Path | None:
    """Where the weights of `entry` are on this machine; None where they would have to be downloaded.

    Those that Keras, KerasHub and tensorflow-hub download are looked for in the cache folder, and by name in
    the libraries' own. Nothing is hashed: they may be damaged.
    """
    sources = (entry.source, *entry.mirrors)
    places = [cached_path(source) for source in sources if isinstance(source, Fetchable)]
    return next((path for path in (*places, *_other_places(entry)) if path.exists()), None)


def works_offline(entry: ZooEntry) -> bool:
    """Whether the entry can be loaded now without a network: its weights are here, or it has none.

    What is in the cache folder is hashed, because what is damaged would be downloaded again.
    """
    sources = (entry.source, *entry.mirrors)
    if any(isinstance(each, NoSource) or (isinstance(each, Fetchable) and cached(each)) for each in sources):
        return True
    return any(
        is_intact(path, expected_hash_at(entry, path)) if path.is_relative_to(home()) else path.exists()
        for path in _other_places(entry)
    )


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _other_places(entry: ZooEntry) -> Iterator[Path]:
    """Where the weights are that tlkit does not download itself."""
    if isinstance(entry.source, HubSource | KerasHubSource):
        source = entry.source
        local = Path(source.handle if isinstance(source, HubSource) else source.preset).expanduser()
        if local.exists():
            yield local
    yield from (path for path in library_files(entry) if fits_size(entry, path))
    theirs = own_place(entry)
    if theirs is not None:
        yield theirs
