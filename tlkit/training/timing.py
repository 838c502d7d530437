"""How long a stage takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tlkit.plans import Stage
from tlkit.training.cache.choice import CacheChoice
from tlkit.training.cache.stage import choose_stage_cache, divide_stage
from tlkit.training.compiling import compile_stage
from tlkit.training.compute.choice import ComputeChoice, preview_compute
from tlkit.training.optimizing.accumulation import cut_batch, join_batches
from tlkit.training.pipelines import training_pipeline
from tlkit.training.trainable import Place, Trainable

STEPS = 3


@dataclass(frozen=True)
class StageTime:
    """Estimated seconds of a whole stage, tracing and the filling of the feature cache included."""

    seconds: float
    cache: CacheChoice
    compute: ComputeChoice


def time_stage(run: Trainable, stage: Stage) -> StageTime:
    """Measure a few steps of a stage on its own examples. The run's weights move: for a dry run only.

    A stage takes its tracing, and the median of the steps times all steps. No more examples are computed at
    once than training does, which may make an update of several batches.
    """
    started = time.perf_counter()
    parts = divide_stage(run)
    choice, features = choose_stage_cache(run, stage, parts)
    pipeline = training_pipeline(run, stage, Place(0, 1, 0))
    reads_features = features is not None and parts is not None
    compute = preview_compute(run, stage, parts, reads_features=reads_features)
    model = compile_stage(run, stage, parts, setting=compute.setting)
    cut = [cut_batch(batch[:2], run.training.accumulate, model.row_unit) for batch in pipeline.take(STEPS)]
    if reads_features and parts is not None:
        cut = [[(parts.lower(x, training=False), y) for x, y in batches] for batches in cut]
    updates, singles = [join_batches(batches) for batches in cut], [batches[0] for batches in cut]
    model.train_on_batch(*updates[0])
    model.test_on_batch(*singles[0])
    train, evaluate = _median(model.train_on_batch, updates), _median(model.test_on_batch, singles)
    overhead = time.perf_counter() - started
    validation_steps = len(run.dataset.splits.get("validation", ())) / run.global_batch_size
    epoch = run.steps_per_epoch * train + validation_steps * evaluate
    fill = 0.0 if features is None else choice.fill_seconds or 0.0
    if features is not None:
        features.table.leave()
    return StageTime(overhead + fill + stage.epochs * epoch, choice, compute)


def _median(step: Callable[..., object], batches: list[Any]) -> float:
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        step(*batch)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
