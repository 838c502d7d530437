"""The one loop that runs every plan: freeze, compile, fit, prove, record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tlkit.data import changed_files_told
from tlkit.errors import DataError, Interrupted, StorageError, TrainingError
from tlkit.plans import Stage
from tlkit.results import StageRecord
from tlkit.results.writing import make_folder
from tlkit.training.adapters import Adapters, adapted
from tlkit.training.best import ends_with_best, put_back_best, put_back_earlier
from tlkit.training.cache.boundary import Parts
from tlkit.training.cache.choice import CacheChoice
from tlkit.training.cache.features import Features
from tlkit.training.cache.stage import divide_stage, store_features
from tlkit.training.compiling import compile_stage, steps_at_once
from tlkit.training.compute.choice import ComputeChoice, choose_compute
from tlkit.training.fitting import Fit
from tlkit.training.freeze import (
    apply_freeze,
    check_unchanged,
    frozen_weights,
    hash_weights,
    trained_groups,
)
from tlkit.training.multi_worker import check_same_weights
from tlkit.training.optimizing.stage_optimizers import stage_optimizer
from tlkit.training.optimizing.state import take_state
from tlkit.training.pipelines import training_pipeline
from tlkit.training.resuming.position import Position
from tlkit.training.resuming.progress import Progress
from tlkit.training.resuming.saver import (
    Saving,
    StageState,
    put_model,
    saved_progress,
    untouched_weights,
)
from tlkit.training.settling import watch_settling
from tlkit.training.trainable import Trainable
from tlkit.training.training_model import TrainingModel


@dataclass(frozen=True)
class Trained:
    """What training leaves: a record for each stage, the history with one row per epoch, of the last stage
    the features, where it stored them, and the adapters, where it had some; and where it had to go on."""

    records: list[StageRecord]
    history: pd.DataFrame
    features: Features | None
    adapters: Adapters | None
    resumed: list[dict[str, Any]]


def train_stages(
    run: Trainable,
    stages: Sequence[Stage],
    folder: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    saving: Saving | None = None,
) -> Trained:
    """Train stage after stage.

    Args:
        run: Model, data and settings; the model is trained in place.
        stages: From `make_plan`.
        folder: The run folder: checkpoints and logs are written there.
        callbacks: The user's own Keras callbacks; they run in every stage.
        saving: Where the run is saved, and the save that it goes on from, which `require_own_save` has passed
            and which is emptied once all of it is put back. None: it is not saved.

    Raises:
        TrainingError: The loss is not finite, or memory ran out; with the weights of the best epoch so far,
            if one has ended.
        StorageError: A checkpoint, a log or a save cannot be written, or features where the config asks for
            the disk; with the same weights.
        DataError: A file that is read in every epoch is gone, or has changed; with the same weights.
        FrozenWeightsMoved: A frozen weight changed during a stage.
        Interrupted: Ctrl-C was pressed; with the same weights.
        ConfigError: The save is of other code.
    """
    for name in ("stages", "logs"):
        make_folder(folder / name)
    saved = None if saving is None else saving.resume
    progress = Progress(list(stages)) if saved is None else _goes_on(run, saved)
    features: Features | None = None
    adapters: Adapters | None = None
    while progress.waiting or saved is not None:
        stage = progress.begin_next() if saved is None else progress.begun[-1]
        started = time.perf_counter() - (0.0 if saved is None else saved["seconds"])
        settling = watch_settling(run.groups, stage, progress.moved)
        try:
            with changed_files_told(run.dataset), adapted(run, stage) as adapters:
                if saved is not None:
                    put_model(run, progress, saved)
                    features = _features_below(run, progress.begun)
                apply_freeze(run.model, run.groups, stage, run.batch_norm)
                frozen = frozen_weights(run.groups, stage, run.batch_norm)
                before = hash_weights(frozen)
                if saved is not None:
                    before = dict(zip(before, saved["frozen"], strict=True))
                parts = divide_stage(run, features)
                choice, stored = _store(run, stage, parts, features, saved)
                if features is not None:
                    features.table.leave()
                features = stored
                position = Position() if saved is None else Position(**saved["position"])
                batches = training_pipeline(run, stage, progress.place, features, position)
                model, compute = _compile(run, progress, parts, batches, features, saved)
                untouched = untouched_weights(run, progress)
                state = StageState(run, progress, before, model, started, choice, compute, untouched)
                fit = Fit(run, state, folder, features, position, saving, saved)
                own = [*callbacks, *([] if settling is None else [settling])]
                history = fit.run_epochs(batches, own)
                check_unchanged(before, frozen, stage.name)
                check_same_weights(run.model, run.strategy, stage.name)
                seconds = time.perf_counter() - started
                record = _record(run, stage, history, choice, compute, adapters, seconds)
                learnt = take_state(stage_optimizer(model), progress.state)
        except KeyboardInterrupt:
            pressed = Interrupted("Interrupted.")
            pressed.keeps_best = put_back_best(run.model, progress.begun, folder, run.monitor, run.head.mode)
            raise pressed from None
        except (DataError, StorageError, TrainingError) as error:
            error.keeps_best = put_back_best(run.model, progress.begun, folder, run.monitor, run.head.mode)
            raise
        rest = None
        if settling is not None:
            rest = stage.without(settling.n_settled, len(run.groups), len(history))
            progress.moved = settling.moved
        if (
            rest is None
            and ends_with_best(stage, run.training)
            and put_back_earlier(run.model, stage, folder, run.monitor, run.head.mode)
            and features is not None
        ):
            features.table.leave()  # below their boundary there are other weights now
            features = None
        progress.end_stage(record, history, learnt, rest)
        saved = None
    history = pd.concat(progress.histories, ignore_index=True)
    return Trained(progress.records, history, features, adapters, progress.resumed)


def _goes_on(run: Trainable, saved: dict[str, Any]) -> Progress:
    progress, position = saved_progress(run, saved), saved["position"]
    here = {"stage": progress.begun[-1].name, "epoch": position["epoch"] + 1, "step": position["step"]}
    return replace(progress, resumed=[*progress.resumed, here])


def _features_below(run: Trainable, begun: Sequence[Stage]) -> Features | None:
    """The features that the current stage's can be computed from, as they were when it began.

    Those of the stage before, and so on down, as long as each of them froze more than the one before it: what
    is below their boundaries has not changed since.
    """
    counts = [stage.n_trained(len(run.groups)) for stage in begun]
    first = len(begun) - 1
    while first and counts[first - 1] > counts[first]:
        first -= 1
    features: Features | None = None
    for stage in begun[first:-1]:
        apply_freeze(run.model, run.groups, stage, run.batch_norm)
        _, stored = store_features(run, stage, divide_stage(run, features), features)
        if features is not None:
            features.table.leave()
        features = stored
    return features


def _store(
    run: Trainable,
    stage: Stage,
    parts: Parts | None,
    below: Features | None,
    saved: dict[str, Any] | None,
) -> tuple[CacheChoice, Features | None]:
    """Decide about stored features, or do again what was decided when the stage began: where `cache.mode` is
    auto, on the disk in place of memory, and the other way round, if need be; what is read is the same.

    Raises:
        StorageError: There is no room for them any more.
    """
    if saved is None:
        return store_features(run, stage, parts, below)
    choice = CacheChoice(**saved["cache"])
    if choice.mode == "off":
        return choice, None
    modes = [choice.mode]
    if run.cache.mode == "auto":
        modes += [mode for mode in ("disk", "memory") if mode != choice.mode]
    for mode in modes:
        spec = run.cache.model_copy(update={"mode": mode, "storage": choice.storage})
        with suppress(StorageError):
            now, features = store_features(replace(run, cache=spec), stage, parts, below)
            if features is not None:
                return replace(choice, mode=now.mode), features
    raise StorageError(
        f"Stage {stage.name!r} began with stored features, and there is no room for them now, neither in "
        f"memory nor on the disk. See: tlkit cache list"
    )


def _compile(
    run: Trainable,
    progress: Progress,
    parts: Parts | None,
    batches: tf.data.Dataset,
    features: Features | None,
    saved: dict[str, Any] | None,
) -> tuple[TrainingModel, ComputeChoice]:
    """The compiled model of the current stage, as it is chosen, or was when the stage began."""
    stage = progress.begun[-1]
    at_once = steps_at_once(run, stage)
    compile_with = partial(compile_stage, run, stage, parts, progress.state, at_once=at_once)
    if saved is not None:
        compute = ComputeChoice(**saved["compute"])
        return compile_with(compute.setting), compute
    return choose_compute(run, stage, parts, batches, compile_with, reads_features=features is not None)


def _record(
    run: Trainable,
    stage: Stage,
    history: pd.DataFrame,
    choice: CacheChoice,
    compute: ComputeChoice,
    adapters: Adapters | None,
    seconds: float,
) -> StageRecord:
    values = history[run.monitor].to_numpy("float64")
    find_best = np.nanargmax if run.head.mode == "max" else np.nanargmin
    best = None if np.isnan(values).all() else int(find_best(values))
    return StageRecord(
        name=stage.name,
        trained_groups=[*trained_groups(run.groups, stage), "head"],
        trainable_params=int(sum(weight.numpy().size for weight in run.model.trainable_weights)),
        epochs_run=len(history),
        seconds=seconds,
        frozen_unchanged=True,
        batch_norm=run.batch_norm,
        learning_rate=stage.learning_rate,
        monitor=run.monitor,
        best_value=None if best is None else float(values[best]),
        best_epoch=None if best is None else best + 1,
        cache=choice.to_dict(),
        compute=compute.to_dict(),
        adapters=None if adapters is None else adapters.to_dict(),
    )
