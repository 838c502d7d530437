"""Ending a stage where its numbers are none any more, before they are saved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tlkit.data.rows import list_some
from tlkit.errors import StorageError, TrainingError
from tlkit.exchange import gather
from tlkit.results import write_csv
from tlkit.training.freeze import moving_statistics
from tlkit.training.resuming.snapshot import read_copies

LOWER_RATE = "A lower --learning-rate usually helps; check the labels of these examples, too."


class FiniteLoss(keras.callbacks.Callback):
    """Stop with the batch named as soon as the loss is not a finite number.

    The loss is that before the step, so a step may spoil the weights although its loss was fine. They are
    looked at where somebody is about to keep them: at the end of an epoch, and before a save.

    In float16, gradients that are not finite are skipped, and the next ones are made smaller. Where that goes
    on until they would not be made larger any more, nothing is learnt, and it stops as well.

    Args:
        stage: Its name.
        batch_of: (epoch, step) → rows of the manifest, those of the examples in that batch.
        file: Where they are written down when it stops there. None: nowhere.
    """

    def __init__(
        self, stage: str, batch_of: Callable[[int, int], pd.DataFrame], file: Path | None = None
    ) -> None:
        super().__init__()
        self.stage = stage
        self.batch_of = batch_of
        self.file = file
        self.epoch = 0
        self.batch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batch = batch
        loss = (logs or {}).get("loss", 0.0)
        scale = getattr(self.model.optimizer, "dynamic_scale", None)
        if math.isfinite(loss) and (scale is None or scale.numpy() >= 1.0):
            return
        if scale is not None:
            what = "gradients are" if math.isfinite(loss) else f"loss is {loss}, because numbers are"
            raise self._error(
                f"float16 overflow in {self._where}: the {what} beyond 65,504",
                "Use --precision mixed_bfloat16 or float32.",
            )
        raise self._error(f"The loss is {loss} in {self._where}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.require_finite_weights()

    def require_finite_weights(self) -> None:
        """Raise the TrainingError for weights, or moving statistics, that the last batches have spoilt."""
        strategy = self.model.distribute_strategy
        # Where the variance of a batch is beyond float32, loss and gradients are still fine.
        statistics = read_copies(moving_statistics(self.model), strategy)
        values = itertools.chain((weight.numpy() for weight in self.model.trainable_variables), *statistics)
        is_finite = all(np.isfinite(value).all() for value in values)
        if not gather(strategy, int(is_finite)).all():  # statistics are each worker's own
            raise self._error(f"Weights are infinite or NaN after {self._where}")

    @property
    def _where(self) -> str:
        return f"stage {self.stage!r}, epoch {self.epoch + 1}, batch {self.batch + 1}"

    def _error(self, what: str, advice: str = LOWER_RATE) -> TrainingError:
        examples = self.batch_of(self.epoch, self.batch)
        where = ""
        if self.file is not None:
            with suppress(StorageError):  # what is wrong with the loss says more
                write_csv(self.file, examples)
                where = f" All of them are in {self.file}."
        return TrainingError(f"{what} (examples {list_some(examples['id'].tolist(), 4)}).{where} {advice}")
