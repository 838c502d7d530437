"""The learning-rate range test (Smith, arXiv:1506.01186): how the loss answers to a rising rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf

from tlkit.errors import ConfigError, TrainingError
from tlkit.plans import Stage
from tlkit.progress import make_progress
from tlkit.training.adapters import adapted
from tlkit.training.cache.stage import divide_stage
from tlkit.training.compiling import compile_stage
from tlkit.training.freeze import apply_freeze
from tlkit.training.pipelines import training_pipeline
from tlkit.training.random_state import random_state_unchanged
from tlkit.training.trainable import Place, Trainable
from tlkit.training.unchanged import model_unchanged

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
FEWEST_STEPS = 10
SMOOTHING = 0.9
DIVERGED = 4.0  # times the best smoothed loss
SKIPPED = 0.1  # share of the steps: at first the smoothed loss is one of few batches
WINDOW = 0.1  # share of the steps over which a slope is measured
NOTABLE_FALL = 0.02  # share of the loss
SUGGESTIONS = ("valley", "steep", "minimum")  # the first is the one to take: it is the least noisy


def check_range(lowest: float, highest: float, steps: int) -> None:
    """Raise a ConfigError for rates and steps that make no test."""
    if not (math.isfinite(lowest) and math.isfinite(highest) and 0 < lowest < highest):
        raise ConfigError(
            f"The rates should be numbers with 0 < lowest < highest, received {lowest:g} and {highest:g}."
        )
    if steps < FEWEST_STEPS:
        raise ConfigError(f"steps should be at least {FEWEST_STEPS}, received {steps}.")


def measure_rates(
    run: Trainable,
    stages: Sequence[Stage],
    index: int = 0,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
) -> pd.DataFrame:
    """Train a few steps of a stage while the learning rate rises exponentially, and put everything back.

    The stage's own freezing, batches, augmentation and optimizer are used, with moments that begin at zero;
    layer groups keep the proportions of their rates. The frozen part is computed anew for every batch.

    Args:
        run: Model, data and settings. Weights, random states and what is trainable are afterwards, bit for
            bit, what they were; the order of the data has no state.
        stages: From `make_plan`.
        index: Which of them.
        lowest, highest: The rates at the first and the last step.
        steps: At most; it ends when the smoothed loss is four times its best or not finite.

    Returns:
        A row for each step: `step`, `learning_rate`, `loss` (of the batch, before the step), `smoothed`.

    Raises:
        ConfigError: Rates or steps make no test.
        TrainingError: The loss is not finite from the start, or memory ran out.
    """
    check_range(lowest, highest, steps)
    rates = np.geomspace(lowest, highest, steps)
    stage = replace(
        stages[index],
        epochs=-(-steps // run.steps_per_epoch),
        schedule="plateau",  # one whose rate is a variable
    )
    settable = replace(run, training=run.training.model_copy(update={"ema": None}))
    rising = RisingRate(rates, stage.name)
    place = Place(index, len(stages), sum(earlier.epochs for earlier in stages[:index]))
    with random_state_unchanged(), model_unchanged(run.model, run.strategy), adapted(run, stage):
        apply_freeze(run.model, run.groups, stage, run.batch_norm)
        model = compile_stage(settable, stage, divide_stage(run))
        try:
            model.fit(
                training_pipeline(run, stage, place),
                steps_per_epoch=steps,
                callbacks=[rising],
                shuffle=False,
                verbose=0,
            )
        except tf.errors.ResourceExhaustedError:
            raise TrainingError(
                f"Out of memory in stage {stage.name!r} with a global batch size of {run.global_batch_size}. "
                "Use a smaller --batch-size."
            ) from None
        finally:
            rising.progress.stop()
    losses = np.array(rising.losses)
    if len(losses) < 2:
        raise TrainingError(
            f"The loss is {losses[-1]} at the first steps of stage {stage.name!r}, at rates up to "
            f"{rates[len(losses) - 1]:.1e}. Check the labels and the loss."
        )
    return pd.DataFrame(
        {
            "step": np.arange(1, len(losses) + 1),
            "learning_rate": rates[: len(losses)],
            "loss": losses,
            "smoothed": smooth(losses),
        }
    )


def smooth(losses: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """An exponential moving average that does not lean towards zero at the beginning."""
    averages, average = [], 0.0
    for count, loss in enumerate(np.asarray(losses, "float64"), 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * float(loss)
        averages.append(average / (1 - SMOOTHING**count))
    return np.array(averages)


def suggest_rates(curve: pd.DataFrame) -> dict[str, float | None]:
    """Three readings of a curve, by the names that fastai gave them; None where the loss never falls.

    - `valley`: the middle of the longest fall.
    - `steep`: the rate at which the smoothed loss falls fastest, by a line through a tenth of all steps.
    - `minimum`: a tenth of the rate at which the smoothed loss is lowest.
    """
    finite = curve[np.isfinite(curve["smoothed"])]
    rates = finite["learning_rate"].to_numpy()
    losses = finite["smoothed"].to_numpy()
    skipped = min(int(SKIPPED * len(curve)), max(0, len(losses) - 3))
    rates, losses = rates[skipped:], losses[skipped:]
    best = int(np.argmin(losses)) if len(losses) else 0
    if best < 2 or losses[: best + 1].max() - losses[best] < NOTABLE_FALL * abs(losses[: best + 1].max()):
        return dict.fromkeys(SUGGESTIONS)
    first, last = _longest_fall(losses)
    return {
        "valley": float(math.sqrt(rates[first] * rates[last])),
        "steep": float(rates[_steepest(losses[: best + 1], int(WINDOW * len(curve)))]),
        "minimum": float(rates[best]) / 10,
    }


def _steepest(values: npt.NDArray[np.float64], width: int) -> int:
    """The middle of the `width` values whose straight line falls most: single steps are mostly noise."""
    width = min(max(width, 3), len(values))
    places = np.arange(width) - (width - 1) / 2
    slopes = np.lib.stride_tricks.sliding_window_view(values, width) @ places
    return int(np.argmin(slopes)) + width // 2


def _longest_fall(values: npt.NDArray[np.float64]) -> tuple[int, int]:
    """The first and the last place of the longest falling subsequence, which leaves noise aside."""
    lengths, starts = np.ones(len(values), int), np.arange(len(values))
    for place in range(1, len(values)):
        higher = np.flatnonzero(values[:place] > values[place])
        if len(higher):
            longest = lengths[higher].max()
            before = higher[lengths[higher] == longest][-1]  # of a flat beginning only the end
            lengths[place], starts[place] = longest + 1, starts[before]
    last = int(np.argmax(lengths))
    return int(starts[last]), last


class RisingRate(keras.callbacks.Callback):
    """Set the rate of every step, keep its loss, and stop where the loss diverges."""

    def __init__(self, rates: npt.NDArray[np.float64], stage: str) -> None:
        super().__init__()
        self.rates = rates
        self.losses: list[float] = []
        self.progress = make_progress()
        self.task = self.progress.add_task(f"Learning rates of stage {stage}", total=len(rates))

    def on_train_begin(self, logs: Any = None) -> None:
        self.progress.start()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = self.rates[batch]
        self.model.reset_metrics()  # else the loss is the mean of all batches so far

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(float((logs or {})["loss"]))
        self.progress.advance(self.task)
        smoothed = smooth(self.losses)
        best = float(np.min(smoothed))
        if not math.isfinite(smoothed[-1]) or smoothed[-1] > best + (DIVERGED - 1) * abs(best):
            self.model.stop_training = True
