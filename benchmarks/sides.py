"""What the benchmarks that compare sides share: a process for each, answers that are kept, the table.

A side measures itself and answers with numbers. It runs in a process of its own, so that none finds
TensorFlow warm, memory taken or threads busy because another was there before it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Answer = dict[str, Any]  # `seconds`, and what else a side tells
Found = dict[str, list[Answer]]  # an answer for each repeat
Report = Callable[[Found, argparse.Namespace], tuple[Table, dict[str, Any]]]
PREPARE = "prepare"
NOT_SETTINGS = {"repeats", "sides", "out", "side", "repeat", "scratch", "answer"}


@dataclass(frozen=True)
class Side:
    """`run` measures; `needs` are the packages of the extra `bench` that it imports."""

    run: Callable[[argparse.Namespace], Answer]
    needs: tuple[str, ...] = ()


def make_parser(
    description: str, sides: Mapping[str, Side], data: str | None = None
) -> argparse.ArgumentParser:
    """The options that all such benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description.splitlines()[0],
        epilog=description.split("\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default=data, required=data is None)
    parser.add_argument("--limit", type=int, help="only so many examples, to try whether everything runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=list(sides), choices=list(sides), metavar="SIDE")
    parser.add_argument(
        "--out", type=Path, help="a JSON file of all answers; what is in it already is not run again"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    return parser


def run_sides(
    parser: argparse.ArgumentParser,
    sides: Mapping[str, Side],
    report: Report,
    prepare: Callable[[argparse.Namespace], Answer] | None = None,
) -> None:
    """Measure, or, in a process that was started for one side, let that side measure itself.

    Args:
        parser: From `make_parser`, with the options of this benchmark.
        sides: By name, in the order in which they run.
        report: What the answers say, as a table and as JSON.
        prepare: Runs before the sides of a repeat, not timed. All of them, and it, have a folder of their
            own, `scratch`, to leave files in for each other.
    """
    arguments = parser.parse_args()
    if arguments.side:
        run = prepare if arguments.side == PREPARE else sides[arguments.side].run
        assert run is not None
        arguments.answer.write_text(json.dumps(run(arguments)), encoding="utf-8")
        return
    for side in arguments.sides:
        missing = [name for name in sides[side].needs if importlib.util.find_spec(name) is None]
        if missing:
            parser.error(f'side {side!r} needs {", ".join(missing)}: pip install ".[bench]"')
    found = _kept(arguments, parser)
    for repeat in range(arguments.repeats):
        left = [side for side in arguments.sides if len(found.get(side, [])) <= repeat]
        with tempfile.TemporaryDirectory() as scratch:
            if prepare is not None and left:
                run_side(PREPARE, repeat, Path(scratch))
            for side in left:
                answer = run_side(side, repeat, Path(scratch))
                found.setdefault(side, []).append(answer)
                print(f"{side}, repeat {repeat + 1}: {_shown(answer)}", file=sys.stderr, flush=True)
                _keep(arguments, found)
    table, document = report(found, arguments)
    Console(stderr=True, width=None if sys.stderr.isatty() else 120).print(table)
    print(json.dumps({"settings": _settings(arguments), **document, "sides": found}, indent=2))


def run_side(side: str, repeat: int, scratch: Path) -> Answer:
    """The answer of one side, from a process of its own with this one's options."""
    out = scratch / "answer.json"
    own = ["--side", side, "--repeat", str(repeat), "--scratch", str(scratch), "--answer", str(out)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    print(f"{side}, repeat {repeat + 1}", file=sys.stderr, flush=True)
    subprocess.run(
        [sys.executable, sys.argv[0], *sys.argv[1:], *own],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,  # of libraries; a side answers in its file
    )
    answer: Answer = json.loads(out.read_text(encoding="utf-8"))
    return answer


def median(answers: Sequence[Answer], name: str = "seconds") -> float:
    return statistics.median(answer[name] for answer in answers)


def ratio(found: Found, side: str, name: str = "seconds", base: str = "tlkit") -> str:
    """How many times as long as `base` a side took, fit for a table."""
    if base not in found:
        return "–"
    return f"{median(found[side], name) / median(found[base], name):.2f}×"


def own_features(arguments: argparse.Namespace) -> Path:
    """Let tlkit store features in a folder of this repeat, which is empty at first."""
    from tlkit.training.cache import choice

    folder: Path = arguments.scratch / "features"
    choice.features_folder = lambda: folder
    return folder


def time_finetune(
    arguments: argparse.Namespace, make_config: Callable[[argparse.Namespace, str], Any]
) -> Answer:
    """tlkit's side of a recipe: the whole run, and the validation accuracy after each epoch."""
    from tlkit import finetune

    own_features(arguments)
    source = json.loads((arguments.scratch / "examples.json").read_text(encoding="utf-8"))["source"]
    history: list[tuple[float, float]] = []
    started = time.perf_counter()

    def note(epoch: int, logs: dict[str, float]) -> None:
        history.append((time.perf_counter() - started, logs["val_accuracy"]))

    run = finetune(config=make_config(arguments, source), callbacks=note, out=Path(arguments.scratch) / "run")
    return {
        "seconds": time.perf_counter() - started,
        "test_accuracy": run.metrics["accuracy"],
        "stages": [record["name"] for record in run.stages.to_dict("records")],
        "history": history,
    }


def slice_pictures(source: str, count: int, path: Path) -> str:
    """Write a table of `count` pictures of a source, stratified by label, drawn with seed 0."""
    import numpy as np
    import pandas as pd

    from tlkit.config import DataConfig
    from tlkit.data.sources import read_rows
    from tlkit.workflows.rank_examples import stratified_rows

    rows = read_rows(source, DataConfig(source=source))
    labels = rows.labels["label"].astype(str).to_numpy()
    chosen = stratified_rows(np.unique(labels, return_inverse=True)[1], count, seed=0)
    paths = [str(Path(rows.paths[row]).resolve()) for row in chosen]
    pd.DataFrame({"path": paths, "label": labels[chosen]}).to_csv(path, index=False)
    return str(path)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    settings = {name: value for name, value in vars(arguments).items() if name not in NOT_SETTINGS}
    as_json: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return as_json


def _kept(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Found:
    """The answers that are in the file already."""
    if arguments.out is None or not arguments.out.exists():
        return {}
    kept = json.loads(arguments.out.read_text(encoding="utf-8"))
    if kept["settings"] != _settings(arguments):
        parser.error(f"{arguments.out} has answers to other settings: {kept['settings']}")
    found: Found = kept["sides"]
    return found


def _keep(arguments: argparse.Namespace, found: Found) -> None:
    if arguments.out is not None:
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(
            json.dumps({"settings": _settings(arguments), "sides": found}, indent=2), encoding="utf-8"
        )
        partial.rename(arguments.out)


def _shown(answer: Answer) -> str:
    return ", ".join(
        f"{name} {value:.4g}" for name, value in answer.items() if isinstance(value, int | float)
    )
