"""Check what the cache folder holds against the hashes in the zoo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.fetch import Fetchable, cached, cached_path
from tlkit.zoo.registry import entries
from tlkit.zoo.sample import SampleEntry, samples
from tlkit.zoo.source import HubSource, KerasHubSource, NoSource, SampleSource, Source, WheelSource

Status = Literal[
    "ok",
    "damaged",
    "not fetched",
    "kept by Keras",
    "kept by KerasHub",
    "kept by tensorflow-hub",
    "from scratch",
]


def verify(chosen: Iterable[ZooEntry | SampleEntry] | None = None) -> dict[str, Status]:
    """The state on this machine of every entry's weights, and of the sample data, by name.

    Reads every file that is there; downloads nothing. "ok": there, with the right hash, from one of the
    entry's sources. "damaged": there, with another hash; loading fetches it again. "not fetched": not there
    yet. "kept by Keras", "kept by KerasHub", "kept by tensorflow-hub": they download and keep them
    themselves. "from scratch": there are none.
    """
    if chosen is None:
        chosen = (*entries(), *(sample for sample in samples() if isinstance(sample.source, WheelSource)))
    return {entry.name: _status(entry) for entry in chosen}


def _status(entry: ZooEntry | SampleEntry) -> Status:
    mirrors = entry.mirrors if isinstance(entry, ZooEntry) else ()
    sources = [source for source in (entry.source, *mirrors) if isinstance(source, Fetchable)]
    if any(cached(source) for source in sources):
        return "ok"
    if sources:
        return "damaged" if any(cached_path(source).exists() for source in sources) else "not fetched"
    if isinstance(entry, SampleEntry) or isinstance(entry.source, NoSource):
        return "from scratch"
    return _keeper(entry.source)


def _keeper(source: Source | SampleSource) -> Status:
    if isinstance(source, HubSource):
        return "kept by tensorflow-hub"
    return "kept by KerasHub" if isinstance(source, KerasHubSource) else "kept by Keras"
