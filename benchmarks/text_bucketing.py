"""Length bucketing against padding to one length: examples per second and test accuracy, side by side.

    python benchmarks/text_bucketing.py --data rt_polarity.csv --seeds 0 1 2

Both sides are one process, the same splits, weights, head, optimizer, batch size and epoch; what differs
is how batches are made. KerasHub's preprocessor pads every text to one length, 512 by default; 128 is what
people set who know that. At 512 only the first steps are timed: padding is masked, so its accuracy is that
of 128. The first steps of every side are left out, because the graph is traced in them.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.table import Table

from tlkit.config import load_config
from tlkit.plans import Stage
from tlkit.preprocessing import TextPreprocessing
from tlkit.training import Trainable, train_stages
from tlkit.workflows.outputs import evaluate_examples, model_function
from tlkit.workflows.prepare import prepare

WARM_UP = 10  # steps
SPLIT = {"test": 0.2, "validation": 0.08}  # 20 % and, of the rest, 10 %
SIDES = {"padded to 512": 512, "padded to 128": 128, "bucketed": None}


class StepTimer(keras.callbacks.Callback):
    """When each step ended; ends the epoch after `most` steps."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append(time.perf_counter())
        if self.most and len(self.ends) >= self.most:
            raise StopIteration

    def rate(self, n_examples: int, n_steps: int) -> float:
        """Examples per second after the warm-up; every step has a like share of an epoch's examples."""
        seconds = self.ends[-1] - self.ends[WARM_UP - 1]
        return (len(self.ends) - WARM_UP) * n_examples / n_steps / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="A table with the columns text and label.")
    parser.add_argument("--backbone", default="minilm_l6")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps-at-512", type=int, default=30)
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    accuracies: dict[str, list[float]] = {name: [] for name in SIDES}
    for seed in arguments.seeds:
        for name, length in SIDES.items():
            most = arguments.steps_at_512 if length == 512 else None
            if most and rates[name]:
                continue  # once: it takes long, and its accuracy is that of 128
            rate, accuracy = measure(arguments.data, arguments.backbone, seed, length, most)
            rates[name].append(rate)
            accuracies[name] += [] if accuracy is None else [accuracy]
            print(f"seed {seed}, {name}: {rate:.1f} examples/s, test accuracy {accuracy}", flush=True)
    table = Table("side", "examples/s (median)", "against 128", "test accuracy (mean)", "by seed")
    base = statistics.median(rates["padded to 128"])
    for name in SIDES:
        rate, found = statistics.median(rates[name]), accuracies[name]
        mean = f"{statistics.mean(found):.4f}" if found else "–"
        each = " ".join(f"{value:.4f}" for value in found)
        table.add_row(name, f"{rate:.1f}", f"{rate / base:.2f}×", mean, each)
    Console().print(table)


def measure(
    data: str, backbone: str, seed: int, length: int | None, most: int | None
) -> tuple[float, float | None]:
    """Examples per second, and accuracy on the test split unless only `most` steps are run."""
    tree = {
        "data": {"source": data, "split": SPLIT},
        "backbone": backbone,
        "seed": seed,
        "plan": "full",
        "training": {"epochs": 1},
    }
    prepared = prepare(load_config(tree).config)
    run = prepared.trainable
    assert isinstance(run.preprocessing, TextPreprocessing)
    if length is not None:
        fixed = replace(run.preprocessing, sequence_length=length, buckets=(length,))
        run = replace(run, preprocessing=fixed)
    timer = StepTimer(most)
    train(run, prepared.stages, timer)
    rate = timer.rate(run.n_train, run.steps_per_epoch)
    if most:
        return rate, None
    outputs = evaluate_examples(
        model_function(run.model),
        run.preprocessing,
        prepared.dataset.splits["test"],
        "classify",
        prepared.dataset.manifest.classes,
        None,
    )
    return rate, outputs.metrics["accuracy"]


def train(run: Trainable, stages: tuple[Stage, ...], timer: StepTimer) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(StopIteration):
        train_stages(run, stages, Path(folder), [timer])


if __name__ == "__main__":
    main()
