"""What a run would do, with measured times, without training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tlkit.cluster import require_alone
from tlkit.config import RunConfig, dump
from tlkit.data import changed_files_told
from tlkit.plans import Stage
from tlkit.progress import track
from tlkit.training import Trainable, adapted, apply_freeze, time_stage, trained_groups
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.prepare import prepare

EARLY = "times are upper bounds: early stopping may end a stage before"
SETTLING = "times are upper bounds: layer groups that have settled freeze before the end"


@dataclass(frozen=True)
class StageEstimate:
    """One stage: what it trains, how long it would take at most, in seconds, what it would store, and how it
    would compute."""

    name: str
    train: str
    epochs: int
    learning_rate: float
    trained_groups: tuple[str, ...]
    trainable_params: int
    batch_norm: str
    seconds_estimate: float
    cache: dict[str, Any]
    compute: dict[str, Any]
    adapters: dict[str, Any] | None


@dataclass(frozen=True)
class DryRun:
    """A resolved config, the backbone's layer groups with their parameters, and every stage."""

    config: RunConfig
    groups: tuple[tuple[str, int], ...]
    stages: tuple[StageEstimate, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "config": dump(self.config),
            "groups": [{"name": name, "params": params} for name, params in self.groups],
            "stages": [asdict(stage) for stage in self.stages],
            "notes": list(self.notes),
        }


def plan_finetune(config: RunConfig, objects: PythonObjects | None = None) -> DryRun:
    """Prepare a run, time a few steps of each stage, and train nothing that is kept."""
    require_alone(config.strategy, "A dry run")
    prepared = prepare(config, objects)
    run = prepared.trainable
    sizes = {name: len(examples) for name, examples in prepared.dataset.splits.items()}
    return DryRun(
        config=prepared.config,
        groups=tuple((group.name, _params(group.layers)) for group in run.groups),
        stages=tuple(_estimate(run, stage) for stage in track(prepared.stages, "Timing the stages")),
        notes=(
            "examples: " + ", ".join(f"{name} {size}" for name, size in sizes.items()),
            f"global batch size {run.global_batch_size}, {run.steps_per_epoch} steps per epoch"
            + (f", each of {run.training.accumulate} batches" if run.training.accumulate > 1 else ""),
            *([EARLY] if any(stage.patience for stage in prepared.stages) else []),
            *([SETTLING] if any(stage.auto_freeze for stage in prepared.stages) else []),
            *prepared.notes,
        ),
    )


def _estimate(run: Trainable, stage: Stage) -> StageEstimate:
    with changed_files_told(run.dataset), adapted(run, stage) as adapters:
        apply_freeze(run.model, run.groups, stage, run.batch_norm)
        trainable_params = sum(int(np.prod(weight.shape)) for weight in run.model.trainable_weights)
        timed = time_stage(run, stage)
        return StageEstimate(
            name=stage.name,
            train=str(stage.train),
            epochs=stage.epochs,
            learning_rate=stage.learning_rate,
            trained_groups=(*trained_groups(run.groups, stage), "head"),
            trainable_params=trainable_params,
            batch_norm=run.batch_norm,
            seconds_estimate=timed.seconds,
            cache=timed.cache.to_dict(),
            compute=timed.compute.to_dict(),
            adapters=None if adapters is None else adapters.to_dict(),
        )


def _params(layers: Any) -> int:
    weights = {id(weight): weight for layer in layers for weight in layer.weights}  # a layer's and its parts'
    return sum(int(np.prod(weight.shape)) for weight in weights.values())
