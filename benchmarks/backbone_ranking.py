"""Does `tlkit zoo rank` say beforehand which backbone is best after fine-tuning?

    python benchmarks/backbone_ranking.py --out ranking --data digits photos/ elpv:1600 --seeds 0 1 2

Of each data set and seed, every backbone is ranked (training split only) and fine-tuned, on the same splits
and at the same image size. The table has LogME, the k-nearest-neighbour score and the test accuracy, means
over the seeds; then, for each data set, the rank correlation of score and accuracy over the backbones, and
the regret: how much accuracy is lost by taking the backbone that the score puts first. `elpv:1600` is a
slice: so many examples, stratified by label, drawn with seed 0.

Every result is kept in the folder `--out`, so that a broken benchmark goes on where it was; `--summary`
reports what is there and runs nothing. The tables go to standard error, one JSON document to standard output.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from rich.console import Console
from rich.table import Column, Table
from sides import slice_pictures

BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "mobilenet_v2_torchvision")
SCORES = ("logme", "knn")


@dataclass(frozen=True)
class Benchmark:
    """What is run, and where results are kept."""

    out: Path
    data: tuple[str, ...]
    backbones: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: tuple[str, ...]  # key.path=value, of ranking and fine-tuning
    training: tuple[str, ...]  # options of fine-tuning alone
    summary: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--plan", default="top")
    parser.add_argument("--test", type=float, default=0.5, help="share of all examples")
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    split = (f"data.split.test={arguments.test}", "data.split.validation=0.1")
    benchmark = Benchmark(
        out=arguments.out,
        data=tuple(arguments.data),
        backbones=tuple(arguments.backbones),
        seeds=tuple(arguments.seeds),
        settings=(f"preprocessing.image_size={arguments.image_size}", *split),
        training=(
            *("--plan", arguments.plan, "--epochs", str(arguments.epochs)),
            *("preprocessing.augment=none", "export=false"),
        ),
        summary=arguments.summary,
    )
    report = run(benchmark)
    show(report)
    print(json.dumps(report, indent=2))


def run(benchmark: Benchmark) -> dict[str, Any]:
    """All results, those that are kept from before included, and what they say."""
    benchmark.out.mkdir(parents=True, exist_ok=True)
    tables = {}
    for data in benchmark.data:
        source, rows = sliced(data, benchmark.out), []
        for seed in benchmark.seeds:
            scores = ranked(benchmark, data, source, seed)
            for backbone in benchmark.backbones:
                accuracy = finetuned(benchmark, data, source, backbone, seed)
                if scores is not None and accuracy is not None:
                    rows.append({"backbone": backbone, "seed": seed, **scores[backbone], **accuracy})
        if {(row["backbone"], row["seed"]) for row in rows} >= {
            (backbone, seed) for backbone in benchmark.backbones for seed in benchmark.seeds
        }:
            tables[data] = pd.DataFrame(rows)
    return {
        "settings": [*benchmark.settings, *benchmark.training],
        "seeds": list(benchmark.seeds),
        "data": {data: described(table) for data, table in tables.items()},
        "mean": {
            score: {
                measure: mean_of(correlation(table, score)[measure] for table in tables.values())
                for measure in ("spearman", "kendall", "regret")
            }
            for score in (SCORES if tables else ())
        },
    }


def described(table: pd.DataFrame) -> dict[str, Any]:
    means = table.groupby("backbone", sort=False).mean(numeric_only=True).drop(columns="seed")
    return {
        "backbones": means.to_dict("index"),
        "runs": table.to_dict("records"),
        **{score: correlation(table, score) for score in SCORES},
    }


def correlation(table: pd.DataFrame, score: str) -> dict[str, float | None]:
    """Of the means over the seeds, one pair for each backbone. None where one of them is always the same."""
    means = table.groupby("backbone", sort=False).mean(numeric_only=True)
    accuracy = means["accuracy"]
    regret = float(accuracy.max() - accuracy[means[score].idxmax()])
    if means[score].nunique() == 1 or accuracy.nunique() == 1:
        return {"spearman": None, "kendall": None, "regret": regret}
    return {
        "spearman": float(scipy.stats.spearmanr(means[score], accuracy).statistic),
        "kendall": float(scipy.stats.kendalltau(means[score], accuracy).statistic),
        "regret": regret,
    }


def mean_of(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def ranked(benchmark: Benchmark, data: str, source: str, seed: int) -> dict[str, Any] | None:
    """LogME, k-NN and seconds of each backbone."""
    command = ["zoo", "rank", "--data", source, "--backbones", ",".join(benchmark.backbones)]
    answer = kept(benchmark, f"rank-{data}-{seed}", [*command, "--seed", str(seed), *benchmark.settings])
    if answer is None:
        return None
    names = (*SCORES, "seconds", "peak_memory")
    return {row["name"]: {name: row[name] for name in names} for row in answer["ranked"]}


def finetuned(
    benchmark: Benchmark, data: str, source: str, backbone: str, seed: int
) -> dict[str, float] | None:
    """Test accuracy and the seconds that the run took."""
    command = ["finetune", "--data", source, "--backbone", backbone, "--seed", str(seed)]
    answer = kept(
        benchmark, f"run-{data}-{backbone}-{seed}", [*command, *benchmark.settings, *benchmark.training]
    )
    if answer is None:
        return None
    return {"accuracy": answer["metrics"]["test"]["accuracy"], "training_seconds": answer["seconds"]}


def kept(benchmark: Benchmark, name: str, command: Sequence[str]) -> Any:
    """The JSON that a command prints, from the folder of results where it ran before with the same words."""
    words = hashlib.sha256("\0".join(command).encode()).hexdigest()[:8]
    short = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    path = benchmark.out / f"{short}-{words}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    if benchmark.summary:
        return None
    scratch = benchmark.out / "run"
    out = ["--out", str(scratch), "--overwrite"] if command[0] == "finetune" else []
    print(f"tlkit {' '.join([*command, *out])}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "tlkit", *command, *out, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    partial = path.with_suffix(".partial")
    partial.write_text(done.stdout, encoding="utf-8")
    partial.rename(path)
    return json.loads(done.stdout)


def sliced(data: str, out: Path) -> str:
    """The source itself, or of `source:n` a table of n of its pictures."""
    source, colon, count = data.rpartition(":")
    if not colon or not count.isdigit():
        return data
    path = out / f"{Path(source).name}-{count}.csv"
    if not path.exists():
        slice_pictures(source, int(count), path)
    return str(path)


def show(report: Mapping[str, Any]) -> None:
    table = Table("data", Column("backbone", no_wrap=True), "LogME", "k-NN", "accuracy", "rank s", "tune s")
    for data, found in report["data"].items():
        for name, row in found["backbones"].items():
            figures = [f"{row[key]:.4f}" for key in (*SCORES, "accuracy")]
            table.add_row(data, name, *figures, f"{row['seconds']:.1f}", f"{row['training_seconds']:.0f}")
        table.add_section()
    verdict = Table("data", "score", "Spearman", "Kendall", "regret")
    for data, found in [*report["data"].items(), ("mean", report["mean"])]:
        for score in SCORES if found else ():
            verdict.add_row(
                data, score, *("–" if value is None else f"{value:.3f}" for value in found[score].values())
            )
        verdict.add_section()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
    console.print(table)
    console.print(verdict)


if __name__ == "__main__":
    main()
