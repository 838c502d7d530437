"""The `fit` of one stage: its callbacks, its saves, and what is done when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import pandas as pd
import tensorflow as tf

from tlkit.data import rows_of_batch
from tlkit.exchange import is_multi_worker, lost_workers_told
from tlkit.plans import Stage
from tlkit.preprocessing import ImagePreprocessing
from tlkit.progress import make_console
from tlkit.training.cache.features import Features, ReleaseMemory
from tlkit.training.callbacks import make_callbacks
from tlkit.training.display import LiveDisplay
from tlkit.training.finite import FiniteLoss
from tlkit.training.freeze import frozen_weights
from tlkit.training.health.gradients import GradientHealth
from tlkit.training.health.words import explain_health
from tlkit.training.multi_worker import SharedStatistics, WholeEpochs
from tlkit.training.out_of_memory import out_of_memory
from tlkit.training.pipelines import validation_pipeline
from tlkit.training.resuming.continued import ContinuedCallbacks
from tlkit.training.resuming.position import Position
from tlkit.training.resuming.saver import SaveProgress, Saving, StageState
from tlkit.training.resuming.snapshot import read_callbacks
from tlkit.training.trainable import Trainable


@dataclass(frozen=True)
class Fit:
    """One stage, ready to be trained.

    Attributes:
        run: What all stages share.
        state: The stage, with its compiled model.
        folder: The run folder.
        features: Where the stage reads stored features.
        position: Where it begins.
        saving: Where it is saved; None: nowhere.
        saved: The save that it goes on from.
    """

    run: Trainable
    state: StageState
    folder: Path
    features: Features | None
    position: Position
    saving: Saving | None
    saved: dict[str, Any] | None

    def run_epochs(
        self, batches: tf.data.Dataset, callbacks: Sequence[keras.callbacks.Callback]
    ) -> pd.DataFrame:
        """Train, and give one row per epoch: stage, epoch, and what was logged.

        Args:
            batches: Of the stage, from the position on.
            callbacks: Besides those that every stage has.

        Raises:
            TrainingError: The loss or a weight is not finite, or memory ran out.
            StorageError: A checkpoint, a log or a save cannot be written.
        """
        stage, model, position = self.state.progress.begun[-1], self.state.model, self.position
        place = self.state.progress.place
        plan = self.run.plan_batches(place.index)
        if position.step:
            model.build_metrics(next(iter(batches)))
            model.to_skip = position.step
        history = keras.callbacks.History()
        finite, health = self._finite(stage), self._health(stage)
        display = self._display(stage, plan.steps)
        built_in = [*self._built_in(stage, finite), *([] if health is None else [health])]
        every = [*built_in, *callbacks, display, history]
        # Somebody's own go through all stages: what they have counted in those before is saved, too.
        made = [*read_callbacks(built_in), *({} for _ in callbacks), *read_callbacks([display, history])]
        state = replace(self.state, callbacks=every, made=made)
        listed = list(every)
        if self.saving is not None:
            listed.append(SaveProgress(self.saving, state, finite.require_finite_weights))
        try:
            with lost_workers_told(is_multi_worker(self.run.strategy)):
                model.fit(
                    batches,
                    epochs=stage.epochs,
                    initial_epoch=stage.epochs if position.ended else position.epoch,
                    steps_per_epoch=plan.steps,
                    validation_data=validation_pipeline(self.run, self.features),
                    callbacks=listed if self.saved is None else self._continued(state, listed, plan.steps),
                    shuffle=False,  # the pipeline has its own order
                    verbose=0,
                )
        except tf.errors.ResourceExhaustedError:
            raise out_of_memory(self.run, stage) from None
        finally:
            if self.saving is not None:
                self.saving.stop.waits = False
            display.progress.stop()  # Keras ends only what ended well
        if self.saving is not None:
            self.saving.stop.obey()  # what was asked for since the last save, that of the end
        table = pd.DataFrame(history.history)
        table.insert(0, "epoch", range(1, len(table) + 1))
        table.insert(0, "stage", stage.name)
        if health is not None:
            if health.skipped:
                make_console().print(f"Gradient health: not measured: {health.skipped}", highlight=False)
            for sentence in explain_health(health.table, table, stage):
                make_console().print(sentence, highlight=False, soft_wrap=True)
        return table

    def _continued(
        self, state: StageState, callbacks: Sequence[keras.callbacks.Callback], steps: int
    ) -> ContinuedCallbacks:
        saved = self.saved
        assert saved is not None
        return ContinuedCallbacks(
            callbacks,
            self.position,
            state,
            saved,
            epochs=state.progress.begun[-1].epochs,
            steps=steps,
            model=state.model,
        )

    def _finite(self, stage: Stage) -> FiniteLoss:
        run, place = self.run, self.state.progress.place
        plan = run.plan_batches(place.index)

        def batch_of(epoch: int, step: int) -> pd.DataFrame:
            rows = rows_of_batch(plan, place.first_epoch + epoch, step)
            table = run.dataset.manifest.table
            return table[table["id"].isin(run.dataset.splits["train"].ids[rows])]

        is_chief = run.share.first == 0
        return FiniteLoss(stage.name, batch_of, self.folder / "logs" / "not_finite.csv" if is_chief else None)

    def _built_in(self, stage: Stage, finite: FiniteLoss) -> list[keras.callbacks.Callback]:
        run = self.run
        frozen = frozen_weights(run.groups, stage, run.batch_norm)
        built_in = make_callbacks(
            run.monitor, run.head.mode, stage, run.training, self.folder, finite, frozen
        )
        # Without stored features the decoded pictures are read; the splits share one file.
        mapped = run.dataset.splits["train"] if self.features is None else self.features.table
        shared = [WholeEpochs(), SharedStatistics()] if is_multi_worker(run.strategy) else []
        return [*shared, *built_in, ReleaseMemory(mapped.release)]

    def _health(self, stage: Stage) -> GradientHealth | None:
        if not self.run.training.gradient_health or self.run.on_tpu:  # it looks between two steps
            return None
        return GradientHealth(self.run, stage, self.state.progress.place, self.folder, self.features)

    def _display(self, stage: Stage, steps: int) -> LiveDisplay:
        place = self.state.progress.place
        unit = "images" if isinstance(self.run.preprocessing, ImagePreprocessing) else "texts"
        return LiveDisplay(stage, f"{place.index + 1}/{place.n_stages}", steps, self.run.n_train, unit)
