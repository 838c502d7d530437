"""The one loop that runs every plan: freeze, compile, fit, prove, record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tlkit.data import rows_of_batch
from tlkit.errors import StorageError, TrainingError
from tlkit.plans import Stage
from tlkit.preprocessing import ImagePreprocessing
from tlkit.progress import make_console
from tlkit.results import StageRecord
from tlkit.training.adapters import Adapters, adapted
from tlkit.training.best import ends_with_best, put_back_best, put_back_earlier
from tlkit.training.cache.choice import CacheChoice
from tlkit.training.cache.features import Features, ReleaseMemory
from tlkit.training.cache.stage import divide_stage, store_features
from tlkit.training.callbacks import close_all, make_callbacks
from tlkit.training.compiling import compile_stage
from tlkit.training.compute.choice import ComputeChoice, choose_compute
from tlkit.training.display import LiveDisplay
from tlkit.training.freeze import (
    apply_freeze,
    check_unchanged,
    frozen_weights,
    hash_weights,
    trained_groups,
)
from tlkit.training.health.gradients import GradientHealth
from tlkit.training.health.words import explain_health
from tlkit.training.optimizing.stage_optimizers import stage_optimizer
from tlkit.training.optimizing.state import OptimizerState, take_state
from tlkit.training.out_of_memory import out_of_memory
from tlkit.training.pipelines import training_pipeline, validation_pipeline
from tlkit.training.settling import Settling, watch_settling
from tlkit.training.trainable import Place, Trainable
from tlkit.training.training_model import TrainingModel


@dataclass(frozen=True)
class Trained:
    """What training leaves: a record for each stage, the history with one row per epoch, and of the last
    stage the features, where it stored them, and the adapters, where it had some."""

    records: list[StageRecord]
    history: pd.DataFrame
    features: Features | None
    adapters: Adapters | None


def train_stages(
    run: Trainable, stages: Sequence[Stage], folder: Path, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Trained:
    """Train stage after stage.

    Args:
        run: Model, data and settings; the model is trained in place.
        stages: From `make_plan`.
        folder: The run folder: checkpoints and logs are written there.
        callbacks: The user's own Keras callbacks; they run in every stage.

    Raises:
        TrainingError: The loss is not finite, or memory ran out; with the weights of the best epoch so far,
            if one has ended.
        StorageError: A checkpoint cannot be written, or features where the config asks for the disk; with the
            same weights.
        FrozenWeightsMoved: A frozen weight changed during a stage.
        KeyboardInterrupt: After the weights of the best epoch so far were put back.
    """
    for name in ("stages", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    records, histories, first_epoch, state = [], [], 0, OptimizerState()
    features: Features | None = None
    settling: Settling | None = None
    begun: list[Stage] = []
    waiting = list(stages)
    while waiting:
        stage = waiting.pop(0)
        begun.append(stage)
        started = time.perf_counter()
        place = Place(len(begun) - 1, len(begun) + len(waiting), first_epoch)
        settling = watch_settling(run.groups, stage, settling)
        try:
            with adapted(run, stage) as adapters:
                apply_freeze(run.model, run.groups, stage, run.batch_norm)
                frozen = frozen_weights(run.groups, stage, run.batch_norm)
                before = hash_weights(frozen)
                parts = divide_stage(run, features)
                choice, stored = store_features(run, stage, parts, features)
                if features is not None:
                    features.table.leave()
                features = stored
                batches = training_pipeline(run, stage, place, features)
                model, compute = choose_compute(
                    run,
                    stage,
                    parts,
                    batches,
                    partial(compile_stage, run, stage, parts, state),
                    reads_features=features is not None,
                )
                own = [*callbacks, *([] if settling is None else [settling])]
                history, state = _fit(run, model, batches, stage, place, folder, own, features, state)
                check_unchanged(before, frozen, stage.name)
                seconds = time.perf_counter() - started
                records.append(_record(run, stage, history, choice, compute, adapters, seconds))
        except KeyboardInterrupt:
            put_back_best(run.model, begun, folder, run.monitor, run.head.mode)
            raise
        except (StorageError, TrainingError) as error:
            error.keeps_best = put_back_best(run.model, begun, folder, run.monitor, run.head.mode)
            raise
        first_epoch += stage.epochs
        histories.append(history)
        rest = None if settling is None else stage.without(settling.n_settled, len(run.groups), len(history))
        if rest is not None:
            waiting.insert(0, rest.named_unlike(each.name for each in (*begun, *waiting)))
        elif (
            ends_with_best(stage, run.training)
            and put_back_earlier(run.model, stage, folder, run.monitor, run.head.mode)
            and features is not None
        ):
            features.table.leave()  # below their boundary there are other weights now
            features = None
    return Trained(records, pd.concat(histories, ignore_index=True), features, adapters)


def _fit(
    run: Trainable,
    model: TrainingModel,
    batches: tf.data.Dataset,
    stage: Stage,
    place: Place,
    folder: Path,
    callbacks: Sequence[keras.callbacks.Callback],
    features: Features | None,
    state: OptimizerState,
) -> tuple[pd.DataFrame, OptimizerState]:
    plan = run.plan_batches(place.index)

    def name_batch(epoch: int, step: int) -> Sequence[str]:
        rows = rows_of_batch(plan, place.first_epoch + epoch, step)
        return [str(name) for name in run.dataset.splits["train"].ids[rows]]

    unit = "images" if isinstance(run.preprocessing, ImagePreprocessing) else "texts"
    display = LiveDisplay(stage, f"{place.index + 1}/{place.n_stages}", plan.steps, run.n_train, unit)
    built_in = make_callbacks(run.monitor, run.head.mode, stage, run.training, folder, name_batch)
    # Without stored features the decoded pictures are read; the splits share one file.
    mapped = run.dataset.splits["train"] if features is None else features.table
    built_in.append(ReleaseMemory(mapped.release))
    health = GradientHealth(run, stage, place, folder, features) if run.training.gradient_health else None
    if health is not None:
        built_in.append(health)
    try:
        history = model.fit(
            batches,
            epochs=stage.epochs,
            steps_per_epoch=plan.steps,
            validation_data=validation_pipeline(run, features),
            callbacks=[*built_in, *callbacks, display],
            shuffle=False,  # the pipeline has its own order
            verbose=0,
        )
    except tf.errors.ResourceExhaustedError:
        raise out_of_memory(run, stage) from None
    finally:
        close_all([*built_in, display])
    table = pd.DataFrame(history.history)
    table.insert(0, "epoch", range(1, len(table) + 1))
    table.insert(0, "stage", stage.name)
    if health is not None:
        if health.skipped:
            make_console().print(f"Gradient health: not measured: {health.skipped}", highlight=False)
        for sentence in explain_health(health.table, table, stage):
            make_console().print(sentence, highlight=False, soft_wrap=True)
    return table, take_state(stage_optimizer(model), state)


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
