"""The Keras callbacks of every stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from tlkit.config import TrainingConfig
from tlkit.plans import Stage
from tlkit.training.best import BestEpoch, checkpoint, ends_with_best, epoch_log, values_before
from tlkit.training.epoch_log import EpochLog
from tlkit.training.event_log import EventLog
from tlkit.training.finite import FiniteLoss
from tlkit.training.optimizing.averaging import AveragedWeights
from tlkit.training.optimizing.schedules import (
    PLATEAU_FACTOR,
    PLATEAU_PATIENCE,
    SETTABLE,
    WarmUp,
    schedule_of,
    warmup_share,
)


def make_callbacks(
    monitor: str,
    mode: str,
    stage: Stage,
    training: TrainingConfig,
    folder: Path,
    finite: FiniteLoss,
    frozen: Sequence[keras.Variable] = (),
) -> list[keras.callbacks.Callback]:
    """The callbacks of a stage, in order.

    Args:
        monitor: The logged value that tells which epoch is best.
        mode: `max` or `min` of it.
        stage: Its patience ends it early.
        training: Which of the optional ones run.
        folder: The run folder; checkpoints go to `stages/`, logs to `logs/`.
        finite: Of the stage.
        frozen: Weights that the stage leaves as they are.
    """
    watch = {"monitor": monitor, "mode": mode}
    callbacks: list[keras.callbacks.Callback] = [
        *([AveragedWeights()] if training.ema else []),  # before all that look at the weights
        finite,  # before all that keep them
        BestEpoch(
            values_before(stage, folder, monitor),
            frozen,
            patience=stage.patience or stage.epochs_before + stage.epochs,
            restore_best_weights=ends_with_best(stage, training),
            **watch,
        ),
        keras.callbacks.ModelCheckpoint(
            str(checkpoint(folder, stage)), save_best_only=True, save_weights_only=True, **watch
        ),
        EpochLog(epoch_log(folder, stage)),  # after the checkpoint, which is none before its epoch is here
        EventLog(str(folder / "logs" / "tensorboard" / stage.name), write_graph=False),
    ]
    schedule = schedule_of(stage, training)
    if schedule in SETTABLE:
        warmup = warmup_share(schedule, training.warmup)
        callbacks.append(WarmUp(stage.learning_rate, warmup, stage.epochs_before))
    if schedule == "plateau":
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE, **watch)
        )
    return callbacks
