"""How long one step of a stage takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tlkit.plans import Stage
from tlkit.training.stages import Trainable, compile_stage

STEPS = 3


@dataclass(frozen=True)
class StepTime:
    """Median seconds of one training step and of one evaluation step, tracing left out."""

    train: float
    evaluate: float


def time_step(run: Trainable, stage: Stage) -> StepTime:
    """Measure a few steps of a stage on black pictures. The run's weights move: for a dry run only."""
    model = compile_stage(run, stage)
    size = run.global_batch_size
    targets = run.dataset.splits["train"].targets[:1]
    inputs = tf.zeros((size, *run.model.input_shape[1:]))
    batch = (inputs, tf.constant(np.repeat(targets, size, axis=0)))
    model.train_on_batch(*batch)
    model.test_on_batch(*batch)
    return StepTime(
        _median(lambda: model.train_on_batch(*batch)), _median(lambda: model.test_on_batch(*batch))
    )


def _median(step: Callable[[], object]) -> float:
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
