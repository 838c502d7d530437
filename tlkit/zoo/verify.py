"""Check what the cache folder holds against the hashes in the zoo."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tlkit.errors import FetchError
from tlkit.zoo.cache import is_intact
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.fetch import Fetchable, cached, cached_path
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.libraries import library_files, library_of, preprocessing_of
from tlkit.zoo.registry import entries
from tlkit.zoo.sample import SampleEntry, samples
from tlkit.zoo.saved_model_files import find_saved_model, hub_place
from tlkit.zoo.source import HubSource, KerasHubSource, NoSource, WheelSource

Status = Literal["ok", "damaged", "not fetched", "from scratch"]


def verify(chosen: Iterable[ZooEntry | SampleEntry] | None = None) -> dict[str, Status]:
    """The state on this machine of every entry's weights, and of the sample data, by name.

    Reads every file that is there; downloads nothing. "ok": there, with the right hash, from one of the
    entry's sources; where the zoo names none, with the hash that it had when it was fetched. "damaged":
    there, with another hash; loading fetches it again. "not fetched": not in the cache folder yet. "from
    scratch": there are none. A SavedModel is as good as its preprocessing.
    """
    if chosen is None:
        chosen = (*entries(), *(sample for sample in samples() if isinstance(sample.source, WheelSource)))
    return {entry.name: _status(entry) for entry in chosen}


def _status(entry: ZooEntry | SampleEntry) -> Status:
    before = preprocessing_of(entry) if isinstance(entry, ZooEntry) else None
    states = [_status_of_weights(entry), *([_hub_status(before)] if before else [])]
    return next((state for state in ("damaged", "not fetched") if state in states), states[0])


def _status_of_weights(entry: ZooEntry | SampleEntry) -> Status:
    mirrors = entry.mirrors if isinstance(entry, ZooEntry) else ()
    sources = [source for source in (entry.source, *mirrors) if isinstance(source, Fetchable)]
    if any(cached(source) for source in sources):
        return "ok"
    if sources:
        return "damaged" if any(cached_path(source).exists() for source in sources) else "not fetched"
    if isinstance(entry, SampleEntry) or isinstance(entry.source, NoSource):
        return "from scratch"
    if isinstance(entry.source, HubSource):
        return _hub_status(entry.source)
    if isinstance(entry.source, KerasHubSource) and library_of(entry.source) is None:
        return "ok"  # a folder of the user's, of which nobody has said which hash it must have
    there = [path for path in library_files(entry) if path.exists()]
    if not there:
        return "not fetched"
    return "ok" if all(is_intact(path, None) for path in there) else "damaged"


def _hub_status(source: HubSource) -> Status:
    place = hub_place(source.handle)
    if not place.exists():
        return "not fetched"
    try:
        folder = find_saved_model(place)
        if source.sha256 is not None:
            return "ok" if hash_of(folder) == source.sha256 else "damaged"
    except FetchError:  # no SavedModel, or names that cannot be hashed
        return "damaged"
    own = place == Path(source.handle).expanduser()  # nobody has said which hash it must have
    return "ok" if own or is_intact(place, None) else "damaged"
