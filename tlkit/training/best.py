"""The best weights that a run has left so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tlkit.config import TrainingConfig
from tlkit.plans import Stage


def checkpoint(folder: Path, stage: Stage) -> Path:
    """The file that holds the weights of a stage's best epoch so far."""
    return folder / "stages" / f"{stage.name}.weights.h5"


def epoch_log(folder: Path, stage: Stage) -> Path:
    """The file with a row for every epoch of a stage so far."""
    return folder / "logs" / f"{stage.name}.csv"


def ends_with_best(stage: Stage, training: TrainingConfig) -> bool:
    """Whether a stage ends with the weights of its best epoch, not of its last."""
    return training.restore_best or stage.patience is not None


def put_back_best(model: keras.Model, stages: Sequence[Stage], folder: Path, monitor: str, mode: str) -> bool:
    """Load the checkpoint with the best monitored value over all stages; of two, the later. False where no
    epoch has ended, and nothing was loaded.

    Args:
        model: The run's model, not compiled.
        stages: Those that have begun.
        folder: The run folder, with `stages/` and `logs/`.
        monitor: The logged value that tells which epoch is best.
        mode: `max` or `min` of it.
    """
    found: list[tuple[float, Path]] = []
    for stage in stages:
        weights, values = checkpoint(folder, stage), _values(folder, stage, monitor)
        if weights.exists() and len(values):  # either alone is from an epoch that did not end
            found.append((_best(values, mode), weights))
    if found:
        best = max(value for value, _ in found)
        model.load_weights([weights for value, weights in found if value == best][-1])
    return bool(found)


def put_back_earlier(model: keras.Model, stage: Stage, folder: Path, monitor: str, mode: str) -> bool:
    """Where the best epoch of a stage was in a part that ended before this one: load its weights. Whether it
    was. The arguments are those of `put_back_best`."""
    before, latest = values_before(stage, folder, monitor), _values(folder, stage, monitor)
    if before.empty or _best(before, mode) < _best(latest, mode):
        return False
    first_last = _parts_before(stage)[::-1]  # of equal epochs a stage ends with the first, as Keras has it
    return put_back_best(model, first_last, folder, monitor, mode)


def values_before(stage: Stage, folder: Path, monitor: str) -> pd.Series:
    """The monitored value of every epoch of the parts that ended before this one."""
    found = [_values(folder, part, monitor) for part in _parts_before(stage)]
    return pd.concat(found, ignore_index=True) if found else pd.Series(dtype="float64")


class BestEpoch(keras.callbacks.EarlyStopping):
    """Keras's own, over all parts of a stage: it goes on where the part before ended, and a part whose rest
    follows ends as it is.

    Args:
        before: The monitored value of every epoch of the parts before.
        frozen: Weights that do not change; no copies of them are held, nor saved.
        options: Of Keras's own; `mode` is `max` or `min`.
    """

    wait: int
    best: float | None
    best_weights: list[np.ndarray | None] | None

    def __init__(
        self, before: Iterable[float], frozen: Iterable[keras.Variable] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.before = list(before)
        self.frozen = {id(weight) for weight in frozen}

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        for value in self.before:
            self.wait += 1
            if self.best is None or (value > self.best if self.mode == "max" else value < self.best):
                self.best, self.wait = value, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # Keras ends nothing after the first epoch, which that of a later part is not.
        super().on_epoch_end(len(self.before) + epoch, logs)
        if self.best_weights is not None:
            weights = zip(self.model.weights, self.best_weights, strict=True)
            self.best_weights = [None if id(weight) in self.frozen else value for weight, value in weights]

    def on_train_end(self, logs: Any = None) -> None:
        if self.model.goes_on:
            return
        if self.best_weights is not None:
            weights = zip(self.model.weights, self.best_weights, strict=True)
            self.best_weights = [weight.numpy() if value is None else value for weight, value in weights]
        super().on_train_end(logs)


def _parts_before(stage: Stage) -> list[Stage]:
    """The parts of a stage that ended before this one, of which the names are right and nothing else."""
    return [replace(stage, name=name) for name in stage.parts_before]


def _values(folder: Path, stage: Stage, monitor: str) -> pd.Series:
    """The monitored value of every epoch of a stage so far, to the last bit, as equal is not better."""
    log = epoch_log(folder, stage)
    if not log.exists() or not log.stat().st_size:
        return pd.Series(dtype="float64")
    return pd.read_csv(log, dtype=str)[monitor].astype("float64")


def _best(values: pd.Series, mode: str) -> float:
    """As a number of which more is better."""
    best = float(values.max() if mode == "max" else -values.min())
    return -math.inf if math.isnan(best) else best
