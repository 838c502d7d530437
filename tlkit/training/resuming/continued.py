"""The callbacks of a `fit` that goes on where an earlier one was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tlkit.training.resuming.position import Position
from tlkit.training.resuming.saver import StageState


class ContinuedCallbacks(keras.callbacks.CallbackList):
    """Leaves out the batches before the position, and puts back what callbacks had counted.

    Args:
        callbacks: Of the stage.
        position: Where it goes on.
        state: The stage, into which the save is put once training has begun, the metrics of an epoch once
            that has begun.
        saved: It is emptied then: it takes as much memory as the model and its optimizer.
        params: What Keras tells callbacks: `epochs`, `steps` and `model`.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        position: Position,
        state: StageState,
        saved: dict[str, Any],
        **params: Any,
    ) -> None:
        super().__init__(list(callbacks), verbose=0, **params)
        self._position = position
        self._state = state
        self._saved = saved
        self._epoch = -1

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._state.put(self._saved)
        if not self._position.step:
            self._saved.clear()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        super().on_epoch_begin(epoch, logs)
        if self._has_been(0):  # what they made is new, and what they had counted is as it was
            self._state.put(self._saved)
            self._state.put_metrics(self._saved)
            self._saved.clear()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._has_been(batch):
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._has_been(batch):
            super().on_train_batch_end(batch, logs)

    def _has_been(self, batch: int) -> bool:
        return self._epoch == self._position.epoch and batch < self._position.step
