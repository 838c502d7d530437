"""Check what the cache folder holds against the hashes in the zoo."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tlkit.zoo.cache import is_intact
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.registry import entries
from tlkit.zoo.source import FileSource, KerasHubSource, NoSource, WheelSource
from tlkit.zoo.wheel import wheel_path

Status = Literal["ok", "damaged", "not fetched", "kept by Keras", "kept by KerasHub", "from scratch"]


def verify(chosen: Iterable[ZooEntry] | None = None) -> dict[str, Status]:
    """The state of every entry's weights on this machine, by name. Reads files; downloads nothing.

    "ok": there, with the right hash. "damaged": there, with another hash; loading fetches it again.
    "not fetched": not there yet. "kept by Keras", "kept by KerasHub": they download and check them
    themselves. "from scratch": there are none.
    """
    return {entry.name: _status(entry) for entry in (entries() if chosen is None else chosen)}


def _status(entry: ZooEntry) -> Status:
    source = entry.source
    if isinstance(source, WheelSource):
        if not wheel_path(source).exists():
            return "not fetched"
        return "ok" if is_intact(wheel_path(source), source.member_sha256) else "damaged"
    if isinstance(source, FileSource):
        path = Path(source.path).expanduser()
        if not path.exists():
            return "not fetched"
        return "ok" if source.sha256 is None or source.sha256 == hash_of(path) else "damaged"
    if isinstance(source, NoSource):
        return "from scratch"
    return "kept by KerasHub" if isinstance(source, KerasHubSource) else "kept by Keras"
