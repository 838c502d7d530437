"""Whether a stage stores features, where, and what that saves: arithmetic that can be shown."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import psutil

from tlkit.config.cache import CacheConfig
from tlkit.data import Examples
from tlkit.errors import StorageError
from tlkit.features import DiskTable, MemoryTable, features_folder, make_room
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing
from tlkit.preprocessing.views import Views, plain_view
from tlkit.training.boundary import Parts
from tlkit.training.feature_cache import Features, column_specs
from tlkit.training.feature_key import key_of_boundary

FLOAT32_UP_TO = 512 * 2**20
WORTH_IT = 0.9  # of the seconds without the cache
USABLE_MEMORY = 0.5


Mode = Literal["disk", "memory", "off"]


@dataclass(frozen=True)
class CacheChoice:
    """What a stage does about its frozen layers, and why.

    `bytes` are those of all features that the stage reads; `missing` are the rows, examples × views, that are
    not there yet. `fill_seconds` and `saved_seconds` are estimates from the measured forward pass; None where
    nothing had to be measured.
    """

    mode: Mode
    reason: str
    key: str | None = None
    storage: str | None = None
    views: int = 0
    bytes: int = 0
    missing: int = 0
    fill_seconds: float | None = None
    saved_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def off(reason: str) -> CacheChoice:
    return CacheChoice("off", reason)


def choose_cache(
    spec: CacheConfig,
    parts: Parts | None,
    preprocessing: ImagePreprocessing | TextPreprocessing,
    splits: Mapping[str, Examples],
    hashes: Mapping[str, str],
    views: Views | None,
    epochs: int,
    storage: str | None = None,
) -> tuple[CacheChoice, Features | None]:
    """Decide for one stage. Nothing is computed but, where it decides, the frozen part of one batch.

    Args:
        spec: What the config asks for.
        parts: The stage's model, divided.
        preprocessing: Makes the inputs.
        splits: `train`, and `validation` where there is one.
        hashes: The content's hash of each example, by id.
        views: The augmented versions that training draws among; None where they are not so many.
        epochs: Of the stage, at most.
        storage: In place of what the config says.

    Returns:
        The choice, and the features where they are stored: to be filled.

    Raises:
        StorageError: The config asks for the disk, and the disk cannot be used.
    """
    if parts is None:
        return off("nothing is frozen"), None
    if isinstance(preprocessing, TextPreprocessing) and preprocessing.long_texts == "windows":
        return off("a text has several windows"), None
    if views is None or (isinstance(preprocessing, TextPreprocessing) and views.by_id):
        return off("the augmentation draws anew every epoch" + _advice(preprocessing)), None
    wanted = {name: examples for name, examples in splits.items() if name != "test"}
    of_split = {name: views if name == "train" else plain_view() for name in wanted}
    storage = storage or _storage(spec, parts, preprocessing, wanted, of_split, hashes)
    features, key, note = _open(spec, parts, preprocessing, wanted, of_split, hashes, storage)
    if features is None:
        return off(note), None
    total = sum(features.count_bytes(wanted[name], of_split[name]) for name in wanted)
    missing = {name: features.count_missing(wanted[name], of_split[name]) for name in wanted}
    mode: Mode = "memory" if isinstance(features.table, MemoryTable) else "disk"
    choice = CacheChoice(
        mode, "all features are there", key, storage, len(views), total, sum(missing.values())
    )
    if not choice.missing:
        return choice, features
    seconds = features.measure(wanted["train"], views)
    fill = seconds / len(views) * choice.missing
    without = seconds / len(views) * epochs * sum(len(examples) for examples in wanted.values())
    choice = replace(choice, fill_seconds=fill, saved_seconds=without - fill)
    said = (
        f"{_size(total)} as {storage}, computed once in about {fill:.0f} s, "
        f"where {epochs} epoch{'s' * (epochs != 1)} without would take {without:.0f} s"
    )
    if spec.mode == "auto" and fill > WORTH_IT * without:
        _forget(features)
        return replace(choice, mode="off", reason=f"it would not pay: {said}"), None
    return replace(choice, reason=f"{said}{note}"), features


def _advice(preprocessing: ImagePreprocessing | TextPreprocessing) -> str:
    return ": cache.views=4 stores so many versions" if isinstance(preprocessing, ImagePreprocessing) else ""


def _storage(
    spec: CacheConfig,
    parts: Parts,
    preprocessing: ImagePreprocessing | TextPreprocessing,
    splits: Mapping[str, Examples],
    views: Mapping[str, Views],
    hashes: Mapping[str, str],
) -> str:
    if spec.storage != "auto":
        return spec.storage
    exact = Features(parts, MemoryTable(column_specs(parts, "float32")), "float32", preprocessing, hashes)
    total = sum(exact.count_bytes(splits[name], views[name]) for name in splits)
    return "float32" if total <= FLOAT32_UP_TO else "float16"


def _open(
    spec: CacheConfig,
    parts: Parts,
    preprocessing: ImagePreprocessing | TextPreprocessing,
    splits: Mapping[str, Examples],
    views: Mapping[str, Views],
    hashes: Mapping[str, str],
    storage: str,
) -> tuple[Features | None, str | None, str]:
    """The features on the disk or in memory, their key, and what is to be said about the place."""
    specs = column_specs(parts, storage)
    key = key_of_boundary(parts.lower, preprocessing) if spec.mode != "memory" else None
    note = "" if key or spec.mode == "memory" else "; in memory, because a layer does not say what it does"
    if key is not None:
        key = hashlib.sha256(f"{key} {storage}".encode()).hexdigest()[:32]
        folder = features_folder() / key
        about = {"storage": storage, "backbone": parts.lower.name, "boundary": [each.name for each in specs]}
        try:
            make_room(0, spec.limit, folder)
            features = Features(parts, DiskTable(folder, specs, about), storage, preprocessing, hashes)
            needed = sum(
                features.count_bytes(examples, views[name])
                * features.count_missing(examples, views[name])
                // max(1, len(examples) * len(views[name]))
                for name, examples in splits.items()
            )
            try:
                make_room(needed, spec.limit, folder)
            except StorageError:
                _forget(features)
                raise
            return features, key, ""
        except StorageError as error:
            if spec.mode == "disk":
                raise
            note = f"; in memory, because: {error}"
    features = Features(parts, MemoryTable(specs), storage, preprocessing, hashes)
    total = sum(features.count_bytes(splits[name], views[name]) for name in splits)
    room = USABLE_MEMORY * psutil.virtual_memory().available
    if total > room:
        return None, None, f"{_size(total)} of features do not fit into memory{note}"
    return features, None, note


def _forget(features: Features) -> None:
    """Leave no empty table behind."""
    table = features.table
    if isinstance(table, DiskTable):
        table.close()
        if not len(table):
            shutil.rmtree(table.folder, ignore_errors=True)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
