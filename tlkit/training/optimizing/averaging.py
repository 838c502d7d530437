"""Running averages of weights: who sees them, and when."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tlkit.training.optimizing.stage_optimizers import stage_optimizer


class AveragedWeights(keras.callbacks.Callback):
    """Validation, checkpoints and the best epoch see the averages; training goes on with the weights.

    To be the first callback, so that the others meet the averages at the end of an epoch. At the end of `fit`
    Keras itself leaves the averages in the model. Keras's `SwapEMAWeights` swaps by adding and subtracting,
    which rounds, and leaves the raw weights behind where a stage ends early.

    The model's optimizer is a `StageOptimizer` with `use_ema=True`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._raw: list[np.ndarray] | None = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._raw is not None:
            for variable, value in zip(stage_optimizer(self.model).trained, self._raw, strict=True):
                variable.assign(value)
            self._raw = None

    def on_test_begin(self, logs: Any = None) -> None:
        self._show()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._show()

    def _show(self) -> None:
        if self._raw is None:
            optimizer = stage_optimizer(self.model)
            self._raw = [variable.numpy() for variable in optimizer.trained]
            for variable, average in zip(optimizer.trained, optimizer.averages, strict=True):
                variable.assign(average.numpy())
