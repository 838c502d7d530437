"""A whole recipe on texts, from a table to a tested model: tlkit against KerasHub and transformers.

    python benchmarks/text_recipe.py --data rt_polarity.csv --sides tlkit Trainer --out texts.json
    python benchmarks/text_recipe.py --data rt_polarity.csv --steps 40 --out estimated.json

All sides read MiniLM from the same Hugging Face folder. They have the same splits (those of seed 0 in the
first repeat, of 1 in the second and so on), batches of 32, and stages: `--stages head:1 all:3` trains the
head for an epoch on the frozen backbone, at 1e-3, then everything. Reading, tokenizing, loading weights,
tracing, training, validating and testing are in their seconds, importing is not.

- `tlkit`: its defaults but for the stages, with an empty feature cache and without an export.
- `KerasHub`: `TextClassifier.from_preset`, compiled as it is by default (Adam at 5e-5 for what is not the
  head's), its own preprocessor, which pads every text to one length: 256 with this folder, which says so,
  else 512. `KerasHub, 128` sets that length.
- `Trainer`: transformers' Trainer with its defaults (AdamW at 5e-5, falling linearly) and dynamic padding.

`--steps 40` runs so many steps of each stage of KerasHub alone and estimates the rest from their median:
there is no accuracy then. In full, on two cores and 10,662 sentences, a repeat takes about five minutes for
tlkit, ten for the Trainer, twenty for KerasHub at 128 and three quarters of an hour at 256.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from rich.table import Table
from sides import Answer, Found, Side, make_parser, median, ratio, run_sides, time_finetune
from text_recipe_others import run_keras_hub, run_keras_hub_128, run_trainer

BACKBONE = "minilm_l6"
SPLIT = {"test": 0.2, "validation": 0.08}  # 20 % and, of the rest, 10 %
BATCH_SIZE = 32


def main() -> None:
    parser = make_parser(__doc__, SIDES)
    parser.add_argument("--stages", nargs="+", default=["head:1", "all:3"], metavar="PART:EPOCHS")
    parser.add_argument("--steps", type=int, help="steps of each stage of KerasHub; the rest is estimated")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of tlkit")
    run_sides(parser, SIDES, report, prepare)


def report(found: Found, arguments: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    table = Table("side", "seconds (median)", "all", "against tlkit", "test accuracy (mean)", "by repeat")
    means = {}
    for side, answers in found.items():
        accuracies = [answer["test_accuracy"] for answer in answers if answer["test_accuracy"] is not None]
        means[side] = statistics.mean(accuracies) if accuracies else None
        table.add_row(
            f"{side} (estimated)" if answers[0].get("estimated") else side,
            f"{median(answers):.0f}",
            " ".join(f"{answer['seconds']:.0f}" for answer in answers),
            ratio(found, side),
            f"{means[side]:.4f}" if accuracies else "–",
            " ".join(f"{accuracy:.4f}" for accuracy in accuracies),
        )
    medians = {side: median(answers) for side, answers in found.items()}
    return table, {"medians": medians, "test_accuracy": means}


def prepare(arguments: argparse.Namespace) -> Answer:
    """Leaves `examples.json`, from which the other sides know texts, labels, classes and weights."""
    import pandas as pd

    from tlkit.data import SPLITS, read_texts
    from tlkit.workflows.prepare import find_entry
    from tlkit.zoo import fetch_weights

    source = arguments.data
    if arguments.limit:
        table = pd.read_csv(source)
        share = arguments.limit / len(table)
        source = str(arguments.scratch / "texts.csv")
        table.groupby("label").sample(frac=share, random_state=0).to_csv(source, index=False)
    config = make_config(arguments, source)
    texts = read_texts(config.data, "classify", seed=config.seed)
    splits = {
        name: {
            "texts": texts.content.samples[texts.splits == name].tolist(),
            "labels": texts.labels.targets[texts.splits == name].tolist(),
        }
        for name in SPLITS
    }
    known = {
        "source": source,
        "classes": texts.labels.classes,
        "folder": str(fetch_weights(find_entry(config))),
        "splits": splits,
    }
    (arguments.scratch / "examples.json").write_text(json.dumps(known), encoding="utf-8")
    return {}


def make_config(arguments: argparse.Namespace, source: str) -> Any:
    from tlkit.config import load_config

    stages = [stage.split(":") for stage in arguments.stages]
    tree = {
        "data": {"source": source, "split": SPLIT},
        "backbone": BACKBONE,
        "seed": arguments.repeat,
        "export": False,
        "training": {"global_batch_size": BATCH_SIZE},
        "plan": [{"name": part, "train": part, "epochs": int(epochs)} for part, epochs in stages],
    }
    return load_config(tree, arguments.set).config


def run_tlkit(arguments: argparse.Namespace) -> Answer:
    return time_finetune(arguments, make_config)


SIDES = {
    "tlkit": Side(run_tlkit),
    "KerasHub": Side(run_keras_hub),
    "KerasHub, 128": Side(run_keras_hub_128),
    "Trainer": Side(run_trainer, needs=("torch", "transformers", "accelerate")),
}


if __name__ == "__main__":
    main()
