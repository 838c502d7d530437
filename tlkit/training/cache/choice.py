"""Whether a stage stores features, where, and what that saves: arithmetic that can be shown."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from tlkit.config.cache import CacheConfig
from tlkit.data import Examples
from tlkit.errors import StorageError
from tlkit.features import ColumnSpec, DiskTable, FeatureTable, MemoryTable, features_folder, find_room
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing
from tlkit.preprocessing.views import Views
from tlkit.training.cache.boundary import FEATURES, Parts
from tlkit.training.cache.columns import OTHER, column_specs, in_storage
from tlkit.training.cache.features import Features
from tlkit.training.cache.key import key_of_boundary

FLOAT32_UP_TO = 512 * 2**20
WORTH_IT = 0.9  # of the seconds without the cache
USABLE_MEMORY = 0.5
READING_SPEED = 500 * 10**6  # bytes per second, of features that the operating system keeps in memory


Mode = Literal["disk", "memory", "off"]


@dataclass(frozen=True)
class CacheChoice:
    """What a stage does about its frozen layers, and why.

    `bytes` are those of all features that the stage reads; `missing` are the rows, examples × views, that are
    not there yet, and `needed` their bytes. `fill_seconds` and `saved_seconds` are estimates from what was
    measured; None where nothing had to be measured.
    """

    mode: Mode
    reason: str
    key: str | None = None
    storage: str | None = None
    views: int = 0
    bytes: int = 0
    missing: int = 0
    needed: int = 0
    fill_seconds: float | None = None
    saved_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Wanted:
    """The features that a stage could read: of `splits`, each example in the `views` of its split.

    `hashes` are those of the examples' content, by id; `backbone` is for people. `below` are those of a lower
    boundary, from which they can be computed.
    """

    parts: Parts
    preprocessing: ImagePreprocessing | TextPreprocessing
    splits: Mapping[str, Examples]
    views: Mapping[str, Views]
    hashes: Mapping[str, str]
    backbone: str
    below: Features | None = None

    @functools.cached_property
    def specs(self) -> tuple[ColumnSpec, ...]:
        """The columns, in float32."""
        given = self.preprocessing
        return column_specs(self.parts, given.sequence_length if isinstance(given, TextPreprocessing) else 0)

    def features(self, table: FeatureTable, storage: str) -> Features:
        return Features(self.parts, table, storage, self.preprocessing, self.hashes)

    def count_values(self, features: Features) -> list[int]:
        """Values of all rows, by column."""
        each = [features.count_values(examples, self.views[name]) for name, examples in self.splits.items()]
        return [sum(of_column) for of_column in zip(*each, strict=True)]

    def count_bytes(self, features: Features) -> int:
        return sum(features.count_bytes(examples, self.views[name]) for name, examples in self.splits.items())

    def count_missing(self, features: Features) -> int:
        return sum(
            features.count_missing(examples, self.views[name]) for name, examples in self.splits.items()
        )

    def count_needed(self, total: int, missing: int) -> int:
        """Bytes of the rows that are missing, from the bytes of all."""
        rows = sum(len(examples) * len(self.views[name]) for name, examples in self.splits.items())
        return total * missing // max(1, rows)


def off(reason: str) -> CacheChoice:
    return CacheChoice("off", reason)


def find_problem(wanted: Wanted) -> str | None:
    """Why features cannot be stored, if they cannot. What is above the boundary is asked about two texts."""
    axes = {spec.axis for spec in wanted.specs}
    if OTHER in axes:
        return "the size of the features follows from neither the tokens nor the words of a text"
    features = wanted.features(MemoryTable(wanted.specs), "float32")
    if axes != {None} and features.reads_padding(wanted.splits["train"]):
        return "what trains reads the padding of texts, which is not stored: its head should use `mask`"
    return None


def choose_cache(
    spec: CacheConfig,
    wanted: Wanted,
    epochs: int,
    *,
    deterministic: bool = False,
    devices: int = 1,
) -> tuple[CacheChoice, Features | None]:
    """Decide for one stage. Nothing is computed but, where it decides, the frozen part of one batch.

    Args:
        spec: What the config asks for. A number of views is stored wherever there is room.
        wanted: What could be stored.
        epochs: Of the stage, at most.
        deterministic: Nothing may depend on how long something takes, or on what an earlier run left: `auto`
            then decides by numbers of examples, and in memory.
        devices: That share an epoch, and would share what is not stored. All that is stored is computed by
            one: of several workers, by one of each.

    Returns:
        The choice, and the features where they are stored: to be filled.

    Raises:
        StorageError: The config asks for the disk, and the disk cannot be used.
    """
    storage = _storage(spec, wanted)
    decides = spec.mode == "auto"
    if decides and deterministic:
        spec = spec.model_copy(update={"mode": "memory"})
    features, key, note = _open(spec, wanted, storage)
    if features is None:
        return off(f"{note}{_instead(spec, wanted)}"), None
    mode: Mode = "memory" if isinstance(features.table, MemoryTable) else "disk"
    total, missing = wanted.count_bytes(features), wanted.count_missing(features)
    n_views = len(wanted.views["train"])
    needed = wanted.count_needed(total, missing)
    choice = CacheChoice(mode, "all features are there", key, storage, n_views, total, missing, needed)
    if not missing:
        return choice, features
    count = sum(len(examples) for examples in wanted.splits.values())
    fill = missing * features.measure(wanted.splits["train"], wanted.views["train"], wanted.below)
    computed = epochs * count / devices  # by each device, where nothing is stored
    without = computed * (features.seconds or 0.0)
    reading = epochs * total / n_views / READING_SPEED / devices
    choice = replace(choice, fill_seconds=fill, saved_seconds=without - fill - reading)
    said = (
        f"{_size(total)} as {storage}, computed once in about {fill:.0f} s and read in {reading:.0f} s, "
        f"where {epochs} epoch{'s' * (epochs != 1)} without would take {without:.0f} s"
    )
    share = missing / computed if deterministic else (fill + reading) / without
    # With a number of views, training differs from training without: that must not depend on a timing.
    if decides and spec.views == "auto" and share > WORTH_IT:
        features.table.leave()
        return replace(choice, mode="off", reason=f"it would not pay: {said}"), None
    return replace(choice, reason=f"{said}{note}"), features


def find_stored(wanted: Wanted, storage: str) -> Features | None:
    """The features on the disk, where all that are wanted are there. Nothing is computed or written."""
    try:
        boundary = key_of_boundary(wanted.parts.lower, wanted.preprocessing)
        folder = features_folder() / _key(boundary, storage, wanted) if boundary else None
        if folder is None or not folder.is_dir():
            return None
        features = _on_disk(wanted, storage, folder)
    except StorageError:
        return None
    if not wanted.count_missing(features):
        return features
    features.table.leave()
    return None


def _instead(spec: CacheConfig, wanted: Wanted) -> str:
    """What it means for training where a number of views cannot be stored."""
    if spec.views == "auto" or wanted.preprocessing.augmentation is None:
        return ""
    return f"; so every epoch augments anew, in place of cache.views={spec.views}"


def require_room(spec: CacheConfig, wanted: Wanted) -> None:
    """Raise the StorageError that `choose_cache` would raise now. Nothing is computed."""
    features, _, _ = _open(spec, wanted, _storage(spec, wanted))
    if features is not None:
        features.table.leave()


def _storage(spec: CacheConfig, wanted: Wanted) -> str:
    if spec.storage != "auto":
        return spec.storage
    exact = wanted.count_bytes(wanted.features(MemoryTable(wanted.specs), "float32"))
    return "float32" if exact <= FLOAT32_UP_TO else "float16"


def _open(spec: CacheConfig, wanted: Wanted, storage: str) -> tuple[Features | None, str | None, str]:
    """The features on the disk or in memory, their key, and what is to be said about the place."""
    note = ""
    if spec.mode != "memory":
        try:
            boundary = key_of_boundary(wanted.parts.lower, wanted.preprocessing)
            if boundary is not None:
                key = _key(boundary, storage, wanted)
                return _open_disk(spec, wanted, storage, key), key, ""
            note = "; in memory, because a layer does not say what it does"
        except StorageError as error:
            if spec.mode == "disk":
                raise
            note = f"; in memory: {error}"
    table = MemoryTable(in_storage(wanted.specs, storage))
    features = wanted.features(table, storage)
    total = wanted.count_bytes(features)
    if total > USABLE_MEMORY * psutil.virtual_memory().available:
        return None, None, f"{_size(total)} of features do not fit into memory{note}"
    table.reserve(wanted.count_values(features))
    return features, None, note


def _key(boundary: str, storage: str, wanted: Wanted) -> str:
    below, rounded = wanted.below, None
    if below is not None and below.storage != "float32" and below.parts.places != wanted.parts.places:
        # Not quite what the pictures themselves would give.
        rounded = (below.storage, key_of_boundary(below.parts.lower, wanted.preprocessing))
    return hashlib.sha256(f"{boundary} {storage} {rounded}".encode()).hexdigest()[:32]


def _open_disk(spec: CacheConfig, wanted: Wanted, storage: str, key: str) -> Features:
    folder = features_folder() / key
    features = _on_disk(wanted, storage, folder)
    try:
        needed = wanted.count_needed(wanted.count_bytes(features), wanted.count_missing(features))
        find_room(needed, spec.limit, folder)
    except StorageError:
        features.table.leave()
        raise
    return features


def _on_disk(wanted: Wanted, storage: str, folder: Path) -> Features:
    about = {"storage": storage, "backbone": wanted.backbone, "boundary": _boundary(wanted.parts)}
    return wanted.features(DiskTable(folder, in_storage(wanted.specs, storage), about), storage)


def _boundary(parts: Parts) -> str:
    """For people: the layer that gives the features, and their shape."""
    tensor = parts.lower.output[FEATURES]
    return f"{tensor._keras_history.operation.name} {tuple(tensor.shape[1:])}"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
