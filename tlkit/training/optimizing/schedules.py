"""The learning rate over the steps of a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf

from tlkit.config import TrainingConfig
from tlkit.config.plan import Schedule
from tlkit.plans import Stage

# The rate is a variable of the optimizer, so that a callback can change it; a callback warms it up, too.
SETTABLE = ("constant", "plateau")
PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.3, 2


@dataclass(frozen=True)
class Shape:
    """A rise from `first` to 1 and a fall from there to `last`, both as shares of the peak rate."""

    first: float
    last: float
    rise: Literal["line", "cosine"]
    fall: Literal["line", "cosine"]
    warmup: float = 0.1


SHAPES: dict[Schedule, Shape] = {
    "constant": Shape(0.0, 1.0, "line", "line"),
    "plateau": Shape(0.0, 1.0, "line", "line"),
    "linear": Shape(0.0, 0.0, "line", "line"),
    # Loshchilov and Hutter, arXiv:1608.03983
    "cosine": Shape(0.0, 0.0, "line", "cosine"),
    # Smith and Topin, arXiv:1708.07120, with the shares that fastai takes
    "one_cycle": Shape(1 / 25, 1 / 25e4, "cosine", "cosine", warmup=0.25),
    # Howard and Ruder, arXiv:1801.06146: cut_frac 0.1, ratio 32
    "slanted_triangular": Shape(1 / 32, 1 / 32, "line", "line"),
}


def schedule_of(stage: Stage, training: TrainingConfig) -> Schedule:
    """The stage's own schedule, else what all of them have."""
    return stage.schedule or training.schedule or "cosine"


def make_schedule(
    kind: Schedule, learning_rate: float, steps: int, warmup: float | None = None, first_step: int = 0
) -> float | StageSchedule:
    """What an optimizer takes as its learning rate.

    Args:
        kind: Its name.
        learning_rate: Peak rate.
        steps: Optimizer steps of the whole schedule.
        warmup: Share of the steps in which the rate rises. None: the schedule's own.
        first_step: The step of the schedule that an optimizer begins with.

    Returns:
        A function of the step; the peak rate where callbacks set the rate (`SETTABLE`).
    """
    if kind in SETTABLE:
        return learning_rate
    return StageSchedule(kind, learning_rate, steps, int(steps * warmup_share(kind, warmup)), first_step)


def warmup_share(kind: Schedule, warmup: float | None) -> float:
    """The share of a stage's steps in which the rate rises: what is given, or the schedule's own."""
    return SHAPES[kind].warmup if warmup is None else warmup


@keras.saving.register_keras_serializable("tlkit")
class StageSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rise to the peak rate and fall again, in one of `SHAPES`."""

    def __init__(
        self,
        kind: Schedule,
        learning_rate: float,
        steps: int,
        warmup_steps: int = 0,
        first_step: int = 0,
    ) -> None:
        self.kind = kind
        self.learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.first_step = first_step

    def __call__(self, step: Any) -> tf.Tensor:
        shape = SHAPES[self.kind]
        step = tf.cast(tf.convert_to_tensor(step), tf.float32) + float(self.first_step)
        risen = step / max(1, self.warmup_steps)
        fallen = tf.clip_by_value(
            (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps), 0.0, 1.0
        )
        rise = shape.first + (1 - shape.first) * _travelled(shape.rise, risen)
        fall = 1 - (1 - shape.last) * _travelled(shape.fall, fallen)
        return self.learning_rate * tf.where(step < self.warmup_steps, rise, fall)

    def get_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "first_step": self.first_step,
        }


class WarmUp(keras.callbacks.Callback):
    """Raise the rate step by step, linearly from zero, for schedules whose rate callbacks set."""

    def __init__(self, learning_rate: float, warmup: float, epochs_before: int = 0) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.warmup = warmup
        self.epochs_before = epochs_before
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = self.epochs_before + epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        epochs = self.epochs_before + self.params["epochs"]
        rising = int(epochs * self.params["steps"] * self.warmup)
        step = self.epoch * self.params["steps"] + batch
        if rising and step <= rising:
            self.model.optimizer.learning_rate = self.learning_rate * step / rising


def _travelled(curve: Literal["line", "cosine"], share: tf.Tensor) -> tf.Tensor:
    return share if curve == "line" else (1 - tf.cos(math.pi * share)) / 2
