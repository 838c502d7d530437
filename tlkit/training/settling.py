"""Which layer groups have learnt what they had to learn, and may freeze."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tlkit.freezing import LayerGroup
from tlkit.plans import Stage
from tlkit.progress import make_console


def watch_settling(
    groups: Sequence[LayerGroup], stage: Stage, moved: Mapping[str, float] | None = None
) -> Settling | None:
    """What watches a stage; None where its plan freezes nothing before the end.

    Args:
        groups: The backbone's layer groups, input to output.
        stage: What is to be trained.
        moved: What each group moved in the last epoch of the stage before, of which this one may be the rest.
    """
    if stage.auto_freeze is None:
        return None
    trained = groups[len(groups) - stage.n_trained(len(groups)) :]
    return Settling(trained, stage.auto_freeze, moved if stage.epochs_before else None)


class Settling(keras.callbacks.Callback):
    """Ends `fit` after an epoch in which the lowest layer groups that train have settled, unless the stage
    ends there anyway. To be the last of the callbacks that may end one.

    What a group moved in an epoch, divided by the rate, is what its gradients add up to: with plain SGD
    exactly that sum, which AutoFreeze (Liu, Agarwal and Venkataraman, arXiv:2102.01386) compares from one
    interval to the next.

    Args:
        groups: The layer groups that train, input to output.
        percentile: Of the relative changes of all groups; those below it count as settled.
        before: What each group moved in the epoch before this `fit`, as `moved` gives it.

    Attributes:
        moved: What each group moved in the last epoch, divided by the rate, by name.
        n_settled: How many groups freeze in the rest of the stage, counted from the input; 0 where it ends.
    """

    def __init__(
        self, groups: Sequence[LayerGroup], percentile: float, before: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.percentile = percentile
        self.moved = dict(before or {})
        self.n_settled = 0
        self._group_of = {path: group.name for group in groups for path in group.weights}
        self._names = [group.name for group in groups]
        self._start: list[npt.NDArray[Any]] = []
        self._rate = math.nan

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # Not at the beginning of the epoch: averages of the weights are in the model until here.
        if batch == 0:
            self._start = [variable.numpy() for variable in self._variables]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self.params["steps"] // 2:
            self._rate = float(self.model.optimizer.learning_rate.numpy())
        if batch == self.params["steps"] - 1:
            moved = self._measure() if self._rate > 0 else {}  # a schedule may end at nothing
            self.n_settled = count_settled(self._names, self.moved, moved, self.percentile)
            self.moved = moved
            self._start = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.model.stop_training or epoch + 1 == self.params["epochs"]:
            self.n_settled = 0  # the stage ends here, and nothing is left of it that could freeze
        if self.n_settled:
            settled = ", ".join(self._names[: self.n_settled])
            make_console().print(f"Settled: {settled} freeze from here on", highlight=False, soft_wrap=True)
            self.model.stop_training = self.model.goes_on = True

    @property
    def _variables(self) -> list[keras.Variable]:
        return [each for each in self.model.trainable_variables if each.path in self._group_of]

    def _measure(self) -> dict[str, float]:
        squares = dict.fromkeys(self._names, 0.0)
        for variable, start in zip(self._variables, self._start, strict=True):
            difference = variable.numpy().astype("float64") - start
            squares[self._group_of[variable.path]] += float(np.sum(difference**2))
        return {name: math.sqrt(square) / self._rate for name, square in squares.items()}


def count_settled(
    names: Sequence[str], before: Mapping[str, float], now: Mapping[str, float], percentile: float
) -> int:
    """How many of the groups, from the first on, changed less than `percentile` of all of them.

    Args:
        names: The groups that train, input to output.
        before: What each moved in the epoch before.
        now: What each moved in this epoch. Where either is not known of all, none has settled.
        percentile: Above 0, below 100; there is always a group that has not settled.
    """
    if not names or any(name not in before or name not in now for name in names):
        return 0
    tiny = np.finfo(float).tiny
    changes = [abs(before[name] - now[name]) / max(before[name], tiny) for name in names]
    limit = np.percentile(changes, percentile)
    return next(place for place, change in enumerate(changes) if change >= limit)
