"""What a person sees while a stage trains: one live line, and one line for each epoch."""

from __future__ import annotations

import time
from typing import Any

import keras
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from tlkit.plans import Stage
from tlkit.progress import make_console, make_progress

SHOWN = ("loss", "accuracy", "binary_accuracy", "mae", "word_f1", "pearson")


class LiveDisplay(keras.callbacks.Callback):
    """Stage, epoch, loss and metric, examples per second, and time left, on standard error."""

    def __init__(
        self, stage: Stage, position: str, steps_per_epoch: int, n_train: int, unit: str = "images"
    ) -> None:
        super().__init__()
        self.stage = stage
        self.title = f"stage {position} {stage.name}"
        self.steps_per_epoch = steps_per_epoch
        self.n_train = n_train
        self.unit = unit
        self.console = make_console()
        self.epoch = 0
        self.epoch_started = 0.0
        self.train_seconds = 0.0
        self.progress = make_progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
        )
        self.task = self.progress.add_task(
            self.title, total=stage.epochs * steps_per_epoch, status="starting"
        )

    def on_train_begin(self, logs: Any = None) -> None:
        self.progress.start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.epoch_started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.train_seconds = time.perf_counter() - self.epoch_started
        done = (batch + 1) / self.steps_per_epoch * self.n_train
        self.progress.update(
            self.task,
            completed=self.epoch * self.steps_per_epoch + batch + 1,
            description=f"{self.title} · epoch {self.epoch + 1}/{self.stage.epochs}",
            status=f"{_values(logs)} · {done / self.train_seconds:.0f} {self.unit}/s",
            refresh=True,
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        rate = self.n_train / max(self.train_seconds, 1e-9)
        self.console.print(
            f"{self.title} · epoch {epoch + 1}/{self.stage.epochs} · "
            f"{_values(logs, all_values=True)} · {rate:.0f} {self.unit}/s",
            highlight=False,
            soft_wrap=True,
        )

    def on_train_end(self, logs: Any = None) -> None:
        self.progress.stop()


def _values(logs: Any, all_values: bool = False) -> str:
    shown = {name: value for name, value in (logs or {}).items() if all_values or name in SHOWN}
    return " ".join(f"{name} {float(value):.4g}" for name, value in shown.items() if name != "learning_rate")
