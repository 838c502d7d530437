"""The Keras callbacks of every stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from tlkit.config import TrainingConfig
from tlkit.errors import TrainingError
from tlkit.plans import Stage
from tlkit.results import write_text
from tlkit.training.best import BestEpoch, checkpoint, ends_with_best, epoch_log, values_before
from tlkit.training.display import LiveDisplay
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
    name_batch: Callable[[int, int], Sequence[str]],
    epochs_logged: int | None = None,
    frozen: Sequence[keras.Variable] = (),
) -> list[keras.callbacks.Callback]:
    """The callbacks of a stage, in order.

    Args:
        monitor: The logged value that tells which epoch is best.
        mode: `max` or `min` of it.
        stage: Its patience ends it early.
        training: Which of the optional ones run.
        folder: The run folder; checkpoints go to `stages/`, logs to `logs/`.
        name_batch: (epoch, step) → ids of the examples in that batch.
        epochs_logged: Of a stage that goes on, how many epochs of its log are to stay. None: it begins.
        frozen: Weights that the stage leaves as they are.
    """
    if epochs_logged is not None:
        _shorten(epoch_log(folder, stage), epochs_logged)
    watch = {"monitor": monitor, "mode": mode}
    callbacks: list[keras.callbacks.Callback] = [
        *([AveragedWeights()] if training.ema else []),  # before all that look at the weights
        FiniteLoss(stage.name, name_batch),
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
        keras.callbacks.CSVLogger(str(epoch_log(folder, stage)), append=epochs_logged is not None),
        keras.callbacks.TensorBoard(str(folder / "logs" / "tensorboard" / stage.name), write_graph=False),
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


def _shorten(log: Path, epochs: int) -> None:
    """Leave out the epochs that will be trained again."""
    if log.exists():
        lines = log.read_bytes().decode().splitlines(keepends=True)  # Python would change the line ends
        write_text(log, "".join(lines[: 1 + epochs]))


def close_all(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Close files and displays, also after an exception in `fit`: Keras ends only what ended well."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and callback.csv_file is not None:
            callback.csv_file.close()
        if isinstance(callback, LiveDisplay):
            callback.progress.stop()


class FiniteLoss(keras.callbacks.Callback):
    """Stop with the batch named as soon as the loss is not a finite number.

    In float16, gradients that are not finite are skipped, and the next ones are made smaller. Where that goes
    on until they would not be made larger any more, nothing is learnt, and it stops as well.
    """

    def __init__(self, stage: str, name_batch: Callable[[int, int], Sequence[str]]) -> None:
        super().__init__()
        self.stage = stage
        self.name_batch = name_batch
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        scale = getattr(self.model.optimizer, "dynamic_scale", None)
        if math.isfinite(loss) and (scale is None or scale.numpy() >= 1.0):
            return
        if scale is not None:
            what = "gradients are" if math.isfinite(loss) else f"loss is {loss}, because numbers are"
            raise TrainingError(
                f"float16 overflow in stage {self.stage!r}, epoch {self.epoch + 1}, batch {batch + 1}: the "
                f"{what} beyond 65,504. Use --precision mixed_bfloat16 or float32."
            )
        ids = list(self.name_batch(self.epoch, batch))
        raise TrainingError(
            f"The loss is {loss} in stage {self.stage!r}, epoch {self.epoch + 1}, batch {batch + 1} "
            f"(examples {', '.join(ids[:4])}{' …' if len(ids) > 4 else ''}). "
            "A lower --learning-rate usually helps; check the labels of these examples, too."
        )
