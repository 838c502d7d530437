"""Which weights are on this machine: looked up by their places, without hashing and without a network."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tlkit.zoo.cache import hub_folder
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.fetch import Fetchable, cached_path
from tlkit.zoo.source import HubSource, KerasHubSource, KerasSource, NoSource, Source


def kept_at(entry: ZooEntry) -> Path | None:
    """Where the weights of `entry` are on this machine; None where they would have to be downloaded.

    Those that Keras, KerasHub and Hugging Face keep are looked for by name in their own cache folders.
    """
    places = (_place(source, entry) for source in (entry.source, *entry.mirrors))
    return next((path for path in places if path is not None and path.exists()), None)


def works_offline(entry: ZooEntry) -> bool:
    """Whether the entry can be loaded now without a network: its weights are here, or it has none."""
    return isinstance(entry.source, NoSource) or kept_at(entry) is not None


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _place(source: Source, entry: ZooEntry) -> Path | None:
    if isinstance(source, Fetchable):
        return cached_path(source)
    if isinstance(source, HubSource):
        return _hub_place(source.handle)
    if isinstance(source, KerasHubSource):
        return _keras_hub_place(source.preset)
    if isinstance(source, KerasSource) and entry.constructor is not None:
        return _keras_place(str(entry.constructor.arguments.get("application")))
    return None


def _hub_place(handle: str) -> Path:
    """A folder or archive of the user's, or where tensorflow-hub puts a handle in the cache folder."""
    local = Path(handle).expanduser()
    return local if local.exists() else hub_folder(handle)


def _keras_place(application: str) -> Path | None:
    """The file without a classification top, which is the one that a backbone loads."""
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    # They are called resnet50_weights_…_notop.h5, weights_mobilenet_v3_small_…_no_top_v2.h5 and the like.
    wanted = re.compile(rf"(weights)?{re.escape(application.lower())}(?!v\d).*notop.*")
    files = sorted(folder.glob("*.h5")) if folder.is_dir() else ()
    return next(
        (file for file in files if wanted.fullmatch(re.sub(r"[^a-z0-9]", "", file.stem.lower()))), None
    )


def _keras_hub_place(preset: str) -> Path | None:
    local = Path(preset).expanduser()
    if local.is_dir():
        return local
    scheme, _, address = preset.rpartition("://")
    if scheme == "hf":
        chosen = os.environ.get("HF_HUB_CACHE")
        hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
        snapshots = (Path(chosen) if chosen else hub) / f"models--{address.replace('/', '--')}" / "snapshots"
        return next(iter(sorted(snapshots.glob("*/"))), None) if snapshots.is_dir() else None
    folder = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub") / "models"
    # A preset that KerasHub knows by name is a variation of that name.
    place = address if scheme == "kaggle" else f"*/*/keras/{address}"
    versions = f"{place}/*/config.json" if place.count("/") == 3 else f"{place}/config.json"
    found = sorted(folder.glob(versions)) if folder.is_dir() else ()
    return found[-1].parent if found else None
