"""How long one step of a stage takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tlkit.plans import Stage
from tlkit.training.stages import Place, Trainable, compile_stage, training_pipeline

STEPS = 3


@dataclass(frozen=True)
class StepTime:
    """Median seconds of one training step and of one evaluation step, tracing left out."""

    train: float
    evaluate: float


def time_step(run: Trainable, stage: Stage) -> StepTime:
    """Measure a few steps of a stage on its own examples. The run's weights move: for a dry run only."""
    model = compile_stage(run, stage)
    batches = [batch[:2] for batch in training_pipeline(run, stage, Place(0, 1, 0)).take(STEPS)]
    model.train_on_batch(*batches[0])
    model.test_on_batch(*batches[0])
    return StepTime(_median(model.train_on_batch, batches), _median(model.test_on_batch, batches))


def _median(step: Callable[..., object], batches: list[Any]) -> float:
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        step(*batch)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
