"""When a stage is saved, and what a save of it holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras

from tlkit.errors import ConfigError
from tlkit.exchange import place_of_worker
from tlkit.results import Saves
from tlkit.stopping import Stop
from tlkit.training.cache.choice import CacheChoice
from tlkit.training.compute.choice import ComputeChoice
from tlkit.training.freeze import frozen_weights, hash_weights
from tlkit.training.optimizing.stage_optimizers import stage_optimizer
from tlkit.training.random_state import put_random_state, take_random_state
from tlkit.training.resuming.agreement import Agreement
from tlkit.training.resuming.position import Position
from tlkit.training.resuming.progress import Progress
from tlkit.training.resuming.snapshot import (
    Copies,
    name_values,
    put_callbacks,
    put_variables,
    read_copies,
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
        state: What there is to save. Several workers save, and stop, after the same step.
        check: Called before; raises where that is not worth saving.
    """

    def __init__(self, saving: Saving, state: StageState, check: Callable[[], None]) -> None:
        super().__init__()
        self.saving = saving
        self.state = state
        self.check = check
        self.every_steps = state.run.training.save_steps
        self.every_seconds = state.run.training.save_seconds
        self.epoch = 0
        self.steps = 0
        self.metrics: Copies | None = None
        self.saved_at = time.monotonic()
        self.writes = place_of_worker(state.run.strategy)[0] == 0
        # Steps of validation are faster, and tell nothing about when to ask in training.
        self.training, self.validation = (Agreement(state.run.strategy, saving.stop) for _ in range(2))

    def on_train_begin(self, logs: Any = None) -> None:
        self.saving.stop.waits = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        is_last = batch + 1 == self.params["steps"]
        agreed = self.training.after_step(self._time_is_up())
        is_due = agreed.time_is_up or (self.every_steps is not None and self.steps >= self.every_steps)
        if agreed.stops or (is_due and not is_last):
            self._save(Position(self.epoch, batch + 1))
        if agreed.stops:
            self.saving.stop.obey()

    def on_test_begin(self, logs: Any = None) -> None:
        self.metrics = self.state.read_metrics()  # of the epoch: validation sets them back

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.validation.after_step().stops:
            self._save(Position(self.epoch, self.params["steps"]))
            self.saving.stop.obey()

    def on_test_end(self, logs: Any = None) -> None:
        self.metrics = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        agreed = self.training.ask(ends=bool(self.model.stop_training))
        self.model.stop_training = agreed.ends
        ended = agreed.ends or epoch + 1 == self.params["epochs"]
        self._save(Position(epoch + 1, 0, ended, self.model.goes_on))
        if agreed.stops:
            self.saving.stop.obey()

    def _time_is_up(self) -> bool:
        return self.every_seconds is not None and time.monotonic() - self.saved_at >= self.every_seconds

    def _save(self, position: Position) -> None:
        self.check()
        tree = self.state.take(position, self.metrics)
        if self.writes:  # of several workers the first: on a resume it sends the others what it wrote
            self.saving.saves.write(tree)
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
        untouched: The weights of the backbone that no stage so far has trained; a save leaves them out.
        callbacks: In their order.
        made: What those kept when they were made; a save holds what is not the same any more. Nothing, of
            callbacks of which it holds everything.
    """

    run: Trainable
    progress: Progress
    frozen: dict[str, str]
    model: TrainingModel
    started: float
    cache: CacheChoice
    compute: ComputeChoice
    untouched: Sequence[keras.Variable]
    callbacks: Sequence[keras.callbacks.Callback] = ()
    made: Sequence[dict[str, Any]] = ()

    def take(self, position: Position, metrics: Copies | None = None) -> dict[str, Any]:
        """What a save holds; `metrics` in place of those that the model has now."""
        run, strategy = self.run, self.run.strategy
        optimizer = stage_optimizer(self.model)
        paths = [weight.path for weight in run.model.weights]
        return {
            "position": asdict(position),
            "replicas": strategy.num_replicas_in_sync,
            "progress": self.progress.to_plain(paths, [weight.path for weight in optimizer.trained]),
            "seconds": time.perf_counter() - self.started,
            "cache": self.cache.to_dict(),
            "compute": self.compute.to_dict(),
            "frozen": list(self.frozen.values()),
            "untouched": [self.frozen[weight.path] for weight in self.untouched],
            "model": take_variables(_touched(run, self.untouched), strategy),
            "optimizer": take_variables(self.model.optimizer.variables, strategy),
            "metrics": name_values(
                self.model.metrics_variables, self.read_metrics() if metrics is None else metrics, strategy
            ),
            "callbacks": take_callbacks(self.callbacks, self.made),
            "was_stopped": self.model.was_stopped,
            "random": take_random_state(),
        }

    def put(self, saved: dict[str, Any]) -> None:
        """When training begins: what has been made since by the callbacks, or drawn, is as it was, too."""
        put_variables(_touched(self.run, self.untouched), saved["model"], self.run.strategy)
        put_variables(self.model.optimizer.variables, saved["optimizer"], self.run.strategy)
        put_callbacks(self.callbacks, self.made, saved["callbacks"])
        self.model.goes_on = saved["position"]["goes_on"]
        self.model.stop_training = saved["was_stopped"]
        put_random_state(saved["random"])

    def read_metrics(self) -> Copies:
        """The metrics of the epoch so far, as the replicas of this process have them."""
        return read_copies(self.model.metrics_variables, self.run.strategy)

    def put_metrics(self, saved: dict[str, Any]) -> None:
        """When the epoch begins, which sets them back."""
        put_variables(self.model.metrics_variables, saved["metrics"], self.run.strategy)


def require_own_save(run: Trainable, saved: dict[str, Any]) -> None:
    """Raise the ConfigError for a save that is not of this run, or of other devices. To be called as soon as
    the run is built: whoever is refused finds everything as it was."""
    if saved["replicas"] != run.n_replicas:
        raise ConfigError(
            f"The run goes on with as many replicas as it began with: {saved['replicas']}, not "
            f"{run.n_replicas}. Give it the same devices and workers, or start anew: --overwrite"
        )
    untouched = untouched_weights(run, saved_progress(run, saved))
    if list(hash_weights(untouched).values()) != saved["untouched"]:
        raise ConfigError(
            f"The weights of {run.backbone!r} are not those that the run began with. Use the backbone that "
            "it had, or start anew: --overwrite"
        )


def saved_progress(run: Trainable, saved: dict[str, Any]) -> Progress:
    """How far the stages are in a save."""
    return Progress.from_plain(saved["progress"], [weight.path for weight in run.model.weights])


def put_model(run: Trainable, progress: Progress, saved: dict[str, Any]) -> None:
    """Give the model what it had learnt."""
    put_variables(_touched(run, untouched_weights(run, progress)), saved["model"], run.strategy)


def untouched_weights(run: Trainable, progress: Progress) -> list[keras.Variable]:
    """The weights of the backbone that no stage so far has trained: a run that is begun again has them."""
    of_stages = [frozen_weights(run.groups, stage, run.batch_norm) for stage in progress.begun]
    common = set.intersection(*({id(weight) for weight in weights} for weights in of_stages))
    return list({id(weight): weight for weight in of_stages[-1] if id(weight) in common}.values())


def _touched(run: Trainable, untouched: Sequence[keras.Variable]) -> list[keras.Variable]:
    left_out = {id(weight) for weight in untouched}
    return [variable for variable in run.model.variables if id(variable) not in left_out]
