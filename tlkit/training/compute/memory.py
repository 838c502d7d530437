"""What trials of this machine found, remembered: one file for each kind of stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from tlkit.devices import device_name
from tlkit.errors import StorageError
from tlkit.plans import Stage
from tlkit.results import writing
from tlkit.training.cache.boundary import Parts
from tlkit.training.cache.key import without_names
from tlkit.training.compute.precision import Setting
from tlkit.training.compute.trial import Measured
from tlkit.training.trainable import Trainable
from tlkit.zoo.cache import home

PACKAGES = ("tensorflow", "keras", "keras-hub", "tlkit")


def key_of_stage(run: Trainable, stage: Stage, parts: Parts | None, *, reads_features: bool) -> str:
    """A hash of all that speed depends on: machine, packages, model, what it trains, batches, optimizer.

    Args:
        run: What is trainable is that of the stage.
        stage: Its name and rates do not count.
        parts: The model at the boundary.
        reads_features: What is below the boundary does not compute.
    """
    training = run.training
    about = [
        device_name(run.strategy),
        run.n_replicas,
        {name: metadata.version(name) for name in PACKAGES if _is_installed(name)},
        run.backbone,
        [_describe(layer) for layer in run.model._flatten_layers()],
        [(tuple(weight.shape), weight.trainable) for weight in run.model.weights],
        stage.n_trained(len(run.groups)),
        [(str(tensor.shape), tensor.dtype) for tensor in run.model.inputs],
        [] if parts is None else [(str(tensor.shape), tensor.dtype) for tensor in parts.upper.inputs],
        reads_features,
        [run.update_size, run.update_tokens, getattr(run.preprocessing, "sequence_length", None)],
        [training.accumulate, training.optimizer, training.ema is not None, training.clip is not None],
        run.batch_norm,
    ]
    return hashlib.sha256(json.dumps(about, default=repr).encode()).hexdigest()[:32]


def recall(key: str) -> dict[Setting, Measured]:
    """What is known; nothing where the file cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        entries = json.loads(_file(key).read_text(encoding="utf-8"))
        return {
            Setting(**entry["setting"]): Measured(
                **{**entry["measured"], "losses": tuple(entry["measured"]["losses"])}
            )
            for entry in entries
        }
    return {}


def remember(key: str, measured: Mapping[Setting, Measured]) -> None:
    """Write it down; where that fails, the next run measures again."""
    entries = [{"setting": asdict(setting), "measured": asdict(found)} for setting, found in measured.items()]
    with suppress(StorageError), writing(_file(key)) as temporary:
        temporary.write_text(json.dumps(entries, indent=1), encoding="utf-8")


def _file(key: str) -> Path:
    return home() / "compute" / f"{key}.json"


def _describe(layer: keras.layers.Layer) -> list[Any]:
    """Kind and settings. A layer of somebody's own need not give them."""
    settings: Any = None
    with suppress(Exception):
        settings = json.dumps(without_names(layer.get_config()), sort_keys=True, default=repr)
    return [type(layer).__name__, layer.trainable, None if isinstance(layer, keras.Model) else settings]


def _is_installed(name: str) -> bool:
    with suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(name))
    return False
