"""Precision and XLA: what `auto` picks against every fixed setting, on several backbones.

    python benchmarks/precision_auto.py --data elpv --texts rt_polarity.csv

Each side is a process of its own: one backbone, fully unfrozen, with one setting, or with `auto`, whose
trials find an empty memory. It traces and compiles first; then `seconds` is the median of five training
steps, on the first batch of the stage, held in memory. `auto` tells what its choice took, too, and measures
the step of the model that it chose as the others do.

The table tells how far the setting that `auto` picked is from the best fixed one, by the times of the fixed
sides; the JSON by its own time, too. A setting that does not run takes for ever.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from typing import Any

from rich.table import Table
from sides import Answer, Found, Side, make_parser, median, run_sides

BACKBONES = ("efficientnet_lite0", "mobilenet_v2_torchvision", "minilm_l6", "dinov2_vits14")
TEXTS = ("minilm_l6",)
AUTO = "auto"
SETTINGS = {
    "float32": ("float32", False),
    "mixed_bfloat16": ("mixed_bfloat16", False),
    "float32 with XLA": ("float32", True),
    "mixed_bfloat16 with XLA": ("mixed_bfloat16", True),
}
GOAL = 1.05


def main() -> None:
    parser = make_parser(__doc__ or "", SIDES, data="elpv")
    parser.add_argument(
        "--texts", help="A table with the columns text and label; or leave out the texts' sides."
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, help="Default: the backbone's own.")
    parser.add_argument("--sequence-length", type=int, default=64)
    parser.add_argument(
        "--epochs", type=int, default=200, help="How long the stage is that auto decides for."
    )
    run_sides(parser, SIDES, report)


def measure_side(arguments: argparse.Namespace, backbone: str, setting: str) -> Answer:
    from tlkit.training.cache.stage import divide_stage
    from tlkit.training.compiling import compile_stage
    from tlkit.training.compute import memory
    from tlkit.training.compute.choice import choose_compute
    from tlkit.training.compute.precision import Setting
    from tlkit.training.compute.trial import measure, trial_batches
    from tlkit.training.freeze import apply_freeze
    from tlkit.training.pipelines import training_pipeline
    from tlkit.training.trainable import Place
    from tlkit.workflows.prepare import prepare

    memory.home = lambda: arguments.scratch / f"home-{backbone}"
    prepared = prepare(make_config(arguments, backbone, setting))
    run, (stage, *_) = prepared.trainable, prepared.stages
    apply_freeze(run.model, run.groups, stage, run.batch_norm)
    parts = divide_stage(run)
    pipeline = training_pipeline(run, stage, Place(0, 1, 0))
    batches = trial_batches(pipeline)

    def compile_with(wanted: Setting) -> Any:
        return compile_stage(run, stage, parts, setting=wanted)

    started = time.perf_counter()
    told: Answer = {}
    if setting == AUTO:
        model, choice = choose_compute(run, stage, parts, pipeline, compile_with, reads_features=False)
        told = {"picked": str(choice.setting), "reason": choice.reason}
    else:
        model = compile_with(Setting(*SETTINGS[setting]))
        if problem := measure(model, batches).problem:
            told = {"problem": problem}
    first = time.perf_counter() - started
    seconds = math.inf if "problem" in told else measure(model, batches).step_seconds
    return {"seconds": seconds, "first_seconds": first, **told}


def make_config(arguments: argparse.Namespace, backbone: str, setting: str) -> Any:
    from tlkit.config import load_config

    is_text = backbone in TEXTS
    if is_text and arguments.texts is None:
        raise SystemExit(f"{backbone} reads texts: --texts TABLE.csv, or --sides without it")
    size = {"sequence_length": arguments.sequence_length} if is_text else {"image_size": arguments.image_size}
    auto = {"precision": "auto", "xla": "auto"} if setting == AUTO else {}
    tree = {
        "data": {"source": arguments.texts if is_text else arguments.data},
        "backbone": backbone,
        "plan": "full",
        "preprocessing": {"augment": "none", **size},
        "training": {"epochs": arguments.epochs, "global_batch_size": arguments.batch_size},
        "cache": {"mode": "off"},
        **auto,
    }
    return load_config(tree).config


def report(found: Found, arguments: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    columns = ["backbone", *SETTINGS, "auto picked", "auto's step", "off the best", "its trials took"]
    table, document = Table(*columns), {}
    for backbone in BACKBONES:
        fixed = {
            setting: median(found[name]) for setting in SETTINGS if (name := f"{backbone} {setting}") in found
        }
        answers = found.get(f"{backbone} {AUTO}", [])
        if not fixed or not answers:
            continue
        best = min(fixed.values())
        picks = [str(answer["picked"]) for answer in answers]
        off = [fixed.get(pick, math.nan) / best for pick in picks]
        own = median(answers)
        document[backbone] = {
            "fixed": fixed,
            "picked": picks,
            "picked_off_best": off,
            "auto_seconds": own,
            "auto_off_best": own / best,
            "within_goal": sorted(off)[len(off) // 2] <= GOAL,
            "trial_seconds": median(answers, "first_seconds"),
        }
        table.add_row(
            backbone,
            *(f"{fixed[setting]:.3f} s" if setting in fixed else "–" for setting in SETTINGS),
            ", ".join(dict.fromkeys(picks)),
            f"{own:.3f} s",
            f"{sorted(off)[len(off) // 2] - 1:+.1%}",
            f"{median(answers, 'first_seconds'):.0f} s",
        )
    return table, {"backbones": document}


SIDES = {
    f"{backbone} {setting}": Side(functools.partial(measure_side, backbone=backbone, setting=setting))
    for backbone in BACKBONES
    for setting in (*SETTINGS, AUTO)
}


if __name__ == "__main__":
    main()
