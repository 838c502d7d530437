"""When a stage is saved, and what a save of it holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras

from tlkit.config import TrainingConfig
from tlkit.errors import ConfigError
from tlkit.results import Saves
from tlkit.stopping import Stop
from tlkit.training.cache.choice import CacheChoice
from tlkit.training.compute.choice import ComputeChoice
from tlkit.training.freeze import frozen_weights, hash_weights
from tlkit.training.optimizing.stage_optimizers import stage_optimizer
from tlkit.training.random_state import put_random_state, take_random_state
from tlkit.training.resuming.position import Position
from tlkit.training.resuming.progress import Progress
from tlkit.training.resuming.snapshot import (
    put_callbacks,
    put_variables,
    take_callbacks,
    take_variables,
)
from tlkit.training.trainable import Trainable
from tlkit.training.training_model import TrainingModel


@dataclass(frozen=True)
class Saving:
    """Where a run is saved, what ends it from outside, and the save that it goes on from."""

    saves: Saves
    stop: Stop = field(default_factory=Stop)
    resume: Any = None


class SaveProgress(keras.callbacks.Callback):
    """Saves the run at the end of every epoch, in between as `training.save_every` says, and when it is to
    stop. To be the last callback, so that a save holds what the others did.

    Args:
        saving: Where to.
        training: How often.
        take: What there is to save, at a position.
    """

    def __init__(
        self, saving: Saving, training: TrainingConfig, take: Callable[[Position], dict[str, Any]]
    ) -> None:
        super().__init__()
        self.saving = saving
        self.every_steps = training.save_steps
        self.every_seconds = training.save_seconds
        self.take = take
        self.epoch = 0
        self.steps = 0
        self.saved_at = time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        self.saving.stop.waits = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        is_last = batch + 1 == self.params["steps"]
        stop = self.saving.stop
        if stop.is_asked or (self._is_due() and not is_last):
            self._save(Position(self.epoch, batch + 1))
            stop.obey()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        ended = self.model.stop_training or epoch + 1 == self.params["epochs"]
        self._save(Position(epoch + 1, 0, bool(ended), self.model.goes_on))
        self.saving.stop.obey()

    def _is_due(self) -> bool:
        if self.every_steps is not None:
            return self.steps >= self.every_steps
        seconds = time.monotonic() - self.saved_at
        return self.every_seconds is not None and seconds >= self.every_seconds

    def _save(self, position: Position) -> None:
        self.saving.saves.write(self.take(position))
        self.steps, self.saved_at = 0, time.monotonic()


@dataclass(frozen=True)
class StageState:
    """All that a stage in training is, to be taken and put back.

    Attributes:
        run: What all stages share.
        progress: What the stages before left.
        frozen: Hash of every weight that the stage leaves as it is, from its beginning, by path.
        model: Compiled.
        started: When the stage began, as `time.perf_counter` tells it.
        cache: What was chosen about stored features.
        compute: How the stage computes.
        callbacks: In their order.
    """

    run: Trainable
    progress: Progress
    frozen: dict[str, str]
    model: TrainingModel
    started: float
    cache: CacheChoice
    compute: ComputeChoice
    callbacks: Sequence[keras.callbacks.Callback] = ()

    def take(self, position: Position) -> dict[str, Any]:
        run, strategy = self.run, self.run.strategy
        optimizer = stage_optimizer(self.model)
        paths = [weight.path for weight in run.model.weights]
        return {
            "position": asdict(position),
            "progress": self.progress.to_plain(paths, [weight.path for weight in optimizer.trained]),
            "seconds": time.perf_counter() - self.started,
            "cache": self.cache.to_dict(),
            "compute": self.compute.to_dict(),
            "frozen": list(self.frozen.values()),
            "untouched": [self.frozen[weight.path] for weight in untouched_weights(run, self.progress)],
            "model": take_variables(_touched(run, self.progress), strategy),
            "optimizer": take_variables(self.model.optimizer.variables, strategy),
            "metrics": take_variables(self.model.metrics_variables, strategy),
            "callbacks": take_callbacks(self.callbacks),
            "random": take_random_state(),
        }

    def put(self, saved: dict[str, Any]) -> None:
        """When training begins: what has been made since by the callbacks, or drawn, is as it was, too."""
        put_model(self.run, self.progress, saved)
        put_variables(self.model.optimizer.variables, saved["optimizer"], self.run.strategy)
        put_callbacks(self.callbacks, saved["callbacks"])
        self.model.goes_on = saved["position"]["goes_on"]
        put_random_state(saved["random"])

    def put_metrics(self, saved: dict[str, Any]) -> None:
        """When the epoch begins, which sets them back."""
        put_variables(self.model.metrics_variables, saved["metrics"], self.run.strategy)


def put_model(run: Trainable, progress: Progress, saved: dict[str, Any]) -> None:
    """Give the model what it had learnt.

    Raises:
        ConfigError: Beside other weights than those that the run began with.
    """
    if list(hash_weights(untouched_weights(run, progress)).values()) != saved["untouched"]:
        raise ConfigError(
            f"The weights of {run.backbone!r} are not those that the run began with. Use the backbone that "
            "it had, or start anew: --overwrite"
        )
    put_variables(_touched(run, progress), saved["model"], run.strategy)


def untouched_weights(run: Trainable, progress: Progress) -> list[keras.Variable]:
    """The weights of the backbone that no stage so far has trained: a run that is begun again has them."""
    of_stages = [frozen_weights(run.groups, stage, run.batch_norm) for stage in progress.begun]
    common = set.intersection(*({id(weight) for weight in weights} for weights in of_stages))
    return list({id(weight): weight for weight in of_stages[-1] if id(weight) in common}.values())


def _touched(run: Trainable, progress: Progress) -> list[keras.Variable]:
    untouched = {id(weight) for weight in untouched_weights(run, progress)}
    return [variable for variable in run.model.variables if id(variable) not in untouched]
