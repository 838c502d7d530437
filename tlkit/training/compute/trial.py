"""A few steps of a stage, to see how fast a setting is and which losses it gives. Nothing is kept of them."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tlkit.errors import TlkitError
from tlkit.exchange import is_multi_worker, lost_workers_told
from tlkit.training.random_state import random_state_unchanged
from tlkit.training.training_model import TrainingModel
from tlkit.training.unchanged import variables_unchanged

TIMED_STEPS = 5
SLOW = 1.5  # times the fastest step so far: nothing more has to be known
TOLERANCE = 0.05  # of float32's mean loss; bfloat16 rounds to 0.4 %, and layers add up
NOISE = 3.0  # times what other draws of dropout change


@dataclass(frozen=True)
class Measured:
    """What a trial found.

    Attributes:
        first_seconds: Of the first step, tracing and compiling included.
        step_seconds: Median of the steps after it.
        losses: Of each step, on its batch.
        problem: Why the setting is out; empty where it is not.
    """

    first_seconds: float = math.nan
    step_seconds: float = math.inf
    losses: tuple[float, ...] = ()
    problem: str = ""

    @property
    def mean_loss(self) -> float:
        return statistics.fmean(self.losses)


def trial_batches(pipeline: tf.data.Dataset) -> tf.data.Dataset:
    """The first batch of a stage, held in memory, again and again: others may have other shapes, and what is
    compiled for them would be in the times of the steps."""
    return hold_batches(pipeline, 1).repeat(1 + TIMED_STEPS)


def hold_batches(pipeline: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """The first batches of a stage, held in memory, so that what is wrong with the data is not taken for what
    is wrong with a setting."""
    batches = pipeline.take(count).cache()
    for _ in batches:
        pass
    return batches


def measure(
    model: TrainingModel,
    batches: tf.data.Dataset,
    *,
    steps: int = 1 + TIMED_STEPS,
    limit: float = math.inf,
    other_draws: bool = False,
) -> Measured:
    """Train for a few steps, and put weights, optimizer and random states back, bit for bit.

    What was traced stays in the model: a stage that goes on with it need not do it again.

    Args:
        model: Compiled.
        batches: At least one, held in memory.
        steps: At most.
        limit: Seconds of a step; where it is slower, the trial ends early, and that is its problem.
        other_draws: Let dropout draw something else than the stage will.

    Raises:
        ResourceExhaustedError: Memory ran out.
        TrainingError: Another worker stopped.
    """
    watch = StepWatch(limit)
    variables = [*model.variables, *model.optimizer.variables]
    with random_state_unchanged(), variables_unchanged(variables, model.distribute_strategy):
        if other_draws:
            for state in _seeds(model):
                state.assign(state + 1)
        try:
            with lost_workers_told(is_multi_worker(model.distribute_strategy)):
                model.fit(batches, steps_per_epoch=steps, callbacks=[watch], shuffle=False, verbose=0)
        except (tf.errors.ResourceExhaustedError, TlkitError):
            raise
        except Exception as error:  # compilers and drivers, and layers of somebody's own: all kinds
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return Measured(problem=lines[0] if lines else type(error).__name__)
    timed = watch.seconds[1:]
    return Measured(
        first_seconds=watch.seconds[0],
        step_seconds=statistics.median(timed) if timed else math.inf,
        losses=tuple(watch.losses),
        problem="slower" if watch.is_slow else "",
    )


def has_chance(model: keras.Model) -> bool:
    """Whether layers of a model draw random numbers."""
    return bool(_seeds(model))


def disagreement(measured: Measured, reference: Measured, again: Measured | None) -> str:
    """What is wrong with the losses of a trial; empty where they agree with the reference's.

    `again`: the reference with other draws: their masks are no reason to disagree, and another precision
    draws other masks.
    """
    losses = measured.losses
    if not all(math.isfinite(loss) for loss in losses):
        return "its losses are not finite"
    expected = statistics.fmean(reference.losses[: len(losses)])
    noise = 0.0 if again is None else abs(reference.mean_loss - again.mean_loss)
    difference = abs(measured.mean_loss - expected)
    if difference <= TOLERANCE * abs(expected) + NOISE * noise:
        return ""
    return f"its losses differ from float32's ({measured.mean_loss:.4g} in place of {expected:.4g})"


class StepWatch(keras.callbacks.Callback):
    """Keeps the seconds and the loss of every step."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.is_slow = False
        self.started = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.reset_metrics()  # else the loss is the mean of all batches so far
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(float((logs or {})["loss"]))  # waits for the step
        self.seconds.append(time.perf_counter() - self.started)
        if len(self.seconds) > 2 and min(self.seconds[1:]) > self.limit:
            self.is_slow = self.model.stop_training = True


def _seeds(model: keras.Model) -> list[keras.Variable]:
    generators = [getattr(layer, "seed_generator", None) for layer in model._flatten_layers()]
    return [generator.state for generator in generators if generator is not None]
