"""What a run reports about itself: the contents of `result.json`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from typing import Any

PACKAGES = ("tlkit", "tensorflow", "keras", "keras-hub", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class StageRecord:
    """What happened in one stage.

    `seconds` includes tracing. `frozen_unchanged` is the outcome of the proof that compares every frozen
    weight with its value before the stage. `best_epoch` counts from 1, within the stage. `cache` says whether
    the stage read stored features (`mode` is disk, memory or off), why, and under which key; `compute` in
    which precision it computed, whether XLA compiled it, and why. `adapters` of LoRA: rank, alpha, how many
    numbers they are, and the paths of their layers.
    """

    name: str
    trained_groups: list[str]
    trainable_params: int
    epochs_run: int
    seconds: float
    frozen_unchanged: bool
    batch_norm: str
    learning_rate: float
    monitor: str | None = None
    best_value: float | None = None
    best_epoch: int | None = None
    cache: dict[str, Any] | None = None
    compute: dict[str, Any] | None = None
    adapters: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> StageRecord:
        """Read what `to_dict` wrote; keys of a newer version are left out."""
        return cls(**_known(cls, tree))


@dataclass(frozen=True)
class Result:
    """The outcome of a complete run.

    `metrics` maps a split (`validation`, `test`) to its metrics; `seconds` is the whole run. `resumed` says
    where it went on after it had stopped: `stage`, `epoch` (from 1), `step` (how many it had done in it).
    """

    metrics: dict[str, dict[str, Any]]
    stages: tuple[StageRecord, ...]
    seconds: float
    environment: dict[str, Any] = field(default_factory=dict)
    resumed: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "stages": [stage.to_dict() for stage in self.stages],
            "resumed": list(self.resumed),
            "seconds": self.seconds,
            "environment": self.environment,
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Result:
        """Read what `to_dict` wrote; keys of a newer version are left out.

        Raises:
            KeyError, TypeError, AttributeError: It is something else.
        """
        known = _known(cls, tree)
        if not all(isinstance(split, dict) for split in known["metrics"].values()):
            raise TypeError("metrics are not a table per split")
        if not isinstance(known["seconds"], int | float):
            raise TypeError("seconds are not a number")
        stages = tuple(StageRecord.from_dict(stage) for stage in known["stages"])
        return cls(**{**known, "stages": stages, "resumed": tuple(known.get("resumed", ()))})


def environment() -> dict[str, Any]:
    """Python, platform and the versions of the packages that decide about numbers."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _known(cls: Any, tree: Mapping[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(cls)}
    return {key: value for key, value in tree.items() if key in names}
