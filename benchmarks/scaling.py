"""Two workers with a core each against one worker with one core: examples per second, and what sharing costs.

    python benchmarks/scaling.py --repeats 3

Each side is a stage, trained by two processes that the launcher of `tlkit launch` started, with a core each;
both stay from the beginning to the end. In turns, so that what else the machine does hits all three:

- `one`: the first process alone, batches of 32; the second one sleeps;
- `two`: both, `strategy: multi_worker`, the same batches of 32 shared between them;
- `apart`: both at once, batches of 16 of their own, `strategy: cpu`. Nothing is exchanged.

`head` trains the head alone. The feature cache is off (`cache.mode: off`): with it hardly anything would be
computed in a step, and there would be nothing to share. `all` trains everything. Pictures are decoded before,
and held in memory; reading them from there, flipping and scaling are part of a step.

A step is what `fit` takes from the end of one batch to that of the next; callbacks, validation and the end of
an epoch are not in it. Medians over the steps of all turns, but for the first ones of every turn
(tracing, filling the pipeline); of `apart` that of the slower process.

The share of the collectives is 1 − apart / two: how much of a step would not be there if nothing were
exchanged. Whatever sharing costs is in it: summing up gradients, losses and counts, and waiting for the other
process where steps do not take the same time. What two processes lose by computing at once (memory, caches,
clock rates) is not: `apart` loses it, too, and `most`, twice its speed against `one`, is what `two` could
reach on this machine if collectives took no time.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from sides import Answer, Found, Side, make_parser, median, run_sides, slice_pictures

WORKERS = 2
TURNS = 3
SKIPPED = 2  # steps of every turn
GOAL = 1.7
PICTURES, MEASURED = "pictures.csv", "measured.json"
# One thread for everything, as there is one core; and no GPU, whatever the machine has.
ENVIRONMENT = {"TF_NUM_INTEROP_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def main() -> None:
    parser = make_parser(__doc__ or "", SIDES, data="elpv")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--batch-size", type=int, default=32, help="over all workers")
    parser.add_argument("--image-size", type=int, help="default: the backbone's own")
    parser.add_argument("--steps", type=int, default=10, help="that count, of a turn of each kind")
    parser.set_defaults(limit=640)
    run_sides(parser, SIDES, report, prepare)


def report(found: Found, arguments: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    columns = ("one, examples/s", "two, examples/s", "two / one", "most", "in collectives", "MB exchanged")
    table, document = Table("stage trained", *columns), {}
    for side, answers in found.items():
        own = {name: median(answers, name) for name in answers[0]}
        document[side] = {**own, "reaches_goal": own["speedup"] >= GOAL}
        table.add_row(
            side,
            *(f"{own[name]:.1f}" for name in ("one_per_second", "two_per_second")),
            *(f"{own[name]:.2f}×" for name in ("speedup", "most")),
            f"{own['collectives']:.1%}",
            f"{own['megabytes']:.2f}",
        )
    return table, {"goal": GOAL, "medians": document}


def prepare(arguments: argparse.Namespace) -> Answer:
    """Write down which pictures are read: the same ones for both stages."""
    slice_pictures(arguments.data, arguments.limit, arguments.scratch / PICTURES)
    return {}


def measure_side(arguments: argparse.Namespace, what: str) -> Answer:
    """A side's process starts the workers. They come here, too, by the same command."""
    if os.environ.get("TF_CONFIG"):
        return measure_worker(arguments, what)
    from tlkit.launching import launch_workers
    from tlkit.launching.cluster import usable_cores

    cores = usable_cores()
    if len(cores) < WORKERS:
        raise SystemExit(f"{WORKERS} cores are needed, and this process may use {len(cores)}.")
    if hasattr(os, "sched_setaffinity"):  # where there are more cores, the others stay idle
        os.sched_setaffinity(0, cores[:WORKERS])
    command = [sys.executable, *sys.argv, "--answer", os.devnull]
    code = launch_workers(command, WORKERS, log=sys.stderr, environment={**os.environ, **ENVIRONMENT})
    if code:
        raise SystemExit(code)
    answer: Answer = json.loads((arguments.scratch / MEASURED).read_text(encoding="utf-8"))
    return answer


@dataclass(frozen=True)
class Case:
    """A stage under one strategy, compiled. `steps(count, size)`: the seconds of so many steps of `fit`."""

    run: Any
    stage: Any
    model: Any

    def steps(self, count: int, size: int) -> list[float]:
        import keras

        from tlkit.training.pipelines import training_pipeline
        from tlkit.training.trainable import Place

        batches = training_pipeline(replace(self.run, global_batch_size=size), self.stage, Place(0, 1, 0))
        ends = [time.perf_counter()]

        def watch(batch: int, logs: Any) -> None:
            float(logs["loss"])  # waits for the step
            ends.append(time.perf_counter())

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=watch)
        self.model.fit(batches, steps_per_epoch=count, callbacks=[callback], shuffle=False, verbose=0)
        return [end - begin for begin, end in itertools.pairwise(ends)]


def measure_worker(arguments: argparse.Namespace, what: str) -> Answer:
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.exchange import gather, place_of_worker

    started = time.perf_counter()
    shared = make_case(arguments, what, "multi_worker")  # first: before all else of TensorFlow
    alone = make_case(arguments, what, "cpu")
    strategy, whole = shared.run.strategy, shared.run.global_batch_size
    number = place_of_worker(strategy)[0]
    part = whole // WORKERS
    kinds: dict[str, Callable[[int], list[float]]] = {
        "one": lambda count: alone.steps(count, whole) if number == 0 else [],
        "two": lambda count: shared.steps(count, whole),
        "apart": lambda count: alone.steps(count, part),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(1 + TURNS):
        for name, steps in kinds.items():
            gather(strategy, 0)  # waits for the other process
            seconds = steps(SKIPPED + (arguments.steps if turn else 1))
            found[name] += seconds[SKIPPED:] if turn else []
    medians = {name: statistics.median(seconds or [0.0]) for name, seconds in found.items()}
    slowest = {name: float(max(gather(strategy, value))) for name, value in medians.items()}
    answer = {
        "seconds": time.perf_counter() - started,
        **{f"{name}_step_ms": 1000 * value for name, value in slowest.items()},
        "one_per_second": whole / slowest["one"],
        "two_per_second": whole / slowest["two"],
        "speedup": slowest["one"] / slowest["two"],
        "most": slowest["one"] / slowest["apart"],
        "collectives": 1 - slowest["apart"] / slowest["two"],
        "megabytes": 4e-6 * sum(weight.numpy().size for weight in alone.model.trainable_weights),
    }
    if number == 0:
        (Path(arguments.scratch) / MEASURED).write_text(json.dumps(answer), encoding="utf-8")
    return answer


def make_case(arguments: argparse.Namespace, what: str, strategy: str) -> Case:
    from tlkit.config import load_config
    from tlkit.training.cache.stage import divide_stage
    from tlkit.training.compiling import compile_stage
    from tlkit.training.freeze import apply_freeze
    from tlkit.workflows.prepare import prepare as prepare_run

    tree = {
        "data": {"source": str(arguments.scratch / PICTURES)},
        "backbone": arguments.backbone,
        "plan": [{"name": what, "train": what, "epochs": 1000, "learning_rate": 1e-5}],
        "training": {"global_batch_size": arguments.batch_size},
        "preprocessing": {"image_size": arguments.image_size},
        "cache": {"mode": "off"},
        "strategy": strategy,
    }
    prepared = prepare_run(load_config(tree).config)
    run, stage = prepared.trainable, prepared.stages[0]
    apply_freeze(run.model, run.groups, stage, run.batch_norm)
    return Case(run, stage, compile_stage(run, stage, divide_stage(run)))


SIDES = {what: Side(functools.partial(measure_side, what=what)) for what in ("head", "all")}


if __name__ == "__main__":
    main()
