"""A whole recipe on pictures, from files to a tested model: tlkit against plain Keras and PyTorch.

    python benchmarks/recipe_images.py --data elpv --out elpv.json
    python benchmarks/recipe_images.py --data sign_digits/images --out digits.json

All sides start from the same weights of EfficientNet-Lite0. They have the same splits (those of seed 0 in the
first repeat, of 1 in the second and so on), batches of 32, pictures of one size that are flipped at random
both ways, and dropout 0.2 before one dense layer. Reading, decoding, loading weights, tracing, training,
validating and testing are in their seconds, importing is not.

- `tlkit`: its defaults, as `tlkit finetune` runs them, with an empty feature cache and without an export.
- `plain Keras`: what https://keras.io/guides/transfer_learning says, with care: the head on a frozen
  backbone, then everything at a low rate; BatchNorm frozen all along, layer by layer, because the guide's
  `training=False` is not honoured once the backbone is unfrozen; decoded pictures in `Dataset.cache()`;
  early stopping in each stage, with its best weights.
- `PyTorch`: the same stages, rates and stopping in a plain loop, as in torchvision's tutorial on transfer
  learning; `efficientnet-lite-pytorch` holds the weights. Channels last, decoded pictures kept in memory,
  two workers that flip and scale. No gradients are computed below what trains.

`--stages head:5 half:5 all:5` unfreezes by steps; `half` is what tlkit's default plan trains. `--set` passes
settings to tlkit, such as `--set plan=gradual`.

Different recipes do not end at the same accuracy, so two times are reported: to the end, with the test
accuracy that was reached, and to the first epoch whose validation accuracy is at least the target. Without
`--target` that is, in each repeat, the lowest of the sides' best. On two cores and ELPV or the digits a
repeat takes about three quarters of an hour, most of it for the last two sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from recipe_images_keras import run_keras
from recipe_images_pytorch import run_pytorch
from rich.table import Table
from sides import (
    Answer,
    Found,
    Side,
    make_parser,
    median,
    ratio,
    run_sides,
    slice_pictures,
    time_finetune,
)

BACKBONE = "efficientnet_lite0"


def main() -> None:
    parser = make_parser(__doc__, SIDES, data="elpv")
    parser.add_argument("--stages", nargs="+", default=["head:5", "all:10"], metavar="PART:EPOCHS")
    parser.add_argument("--head-rate", type=float, default=1e-3)
    parser.add_argument("--rate", type=float, default=1e-4, help="of the stages after the head's")
    parser.add_argument("--patience", type=int, default=3)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of tlkit")
    parser.add_argument("--target", type=float, help="validation accuracy")
    run_sides(parser, SIDES, report, prepare)


def report(found: Found, arguments: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    reached = {side: times_to_target(found, side, arguments.target) for side in found}
    table = Table(
        *("side", "seconds (median)", "against tlkit", "to target", "against tlkit"),
        *("test accuracy (mean)", "by repeat"),
    )
    for side, answers in found.items():
        accuracies = [answer["test_accuracy"] for answer in answers]
        to_target = middle(reached[side])
        base = middle(reached.get("tlkit", []))
        table.add_row(
            side,
            f"{median(answers):.0f}",
            ratio(found, side),
            "never" if to_target is None else f"{to_target:.0f}",
            f"{to_target / base:.2f}×" if to_target and base else "–",
            f"{statistics.mean(accuracies):.4f}",
            " ".join(f"{accuracy:.4f}" for accuracy in accuracies),
        )
    return table, {
        "medians": {side: median(answers) for side, answers in found.items()},
        "seconds_to_target": reached,
        "test_accuracy": {
            side: statistics.mean(answer["test_accuracy"] for answer in answers)
            for side, answers in found.items()
        },
    }


def times_to_target(found: Found, side: str, target: float | None) -> list[float | None]:
    """Seconds to the target in each repeat; None where it was not reached."""
    times = []
    for repeat, answer in enumerate(found[side]):
        best = [
            max(accuracy for _, accuracy in answers[repeat]["history"])
            for answers in found.values()
            if len(answers) > repeat
        ]
        wanted = min(best) if target is None else target
        times.append(next((at for at, accuracy in answer["history"] if accuracy >= wanted), None))
    return times


def middle(times: list[float | None]) -> float | None:
    """The median; None where most of them were never reached."""
    ordered = sorted(float("inf") if at is None else at for at in times)
    value = statistics.median_low(ordered) if ordered else float("inf")
    return None if value == float("inf") else value


def prepare(arguments: argparse.Namespace) -> Answer:
    """Leaves `examples.json`, from which the other sides know files, labels, classes and weights."""
    from tlkit.workflows.examples import load_examples
    from tlkit.workflows.objects import PythonObjects
    from tlkit.workflows.prepare import find_entry
    from tlkit.zoo import fetch_weights

    source = arguments.data
    if arguments.limit:
        source = slice_pictures(source, arguments.limit, arguments.scratch / "pictures.csv")
    config = make_config(arguments, source)
    entry = find_entry(config)
    dataset, preprocessing = load_examples(config, entry, PythonObjects())
    splits = {
        name: {"paths": examples.paths.tolist(), "labels": examples.targets.tolist()}
        for name, examples in dataset.splits.items()
        if examples.paths is not None
    }
    known = {
        "source": source,
        "classes": dataset.manifest.classes,
        "image_size": preprocessing.image_size,
        "weights": str(fetch_weights(entry)),
        "splits": splits,
    }
    (arguments.scratch / "examples.json").write_text(json.dumps(known), encoding="utf-8")
    return {}


def make_config(arguments: argparse.Namespace, source: str) -> Any:
    from tlkit.config import load_config

    own = {"data.source": source, "backbone": BACKBONE, "seed": arguments.repeat, "export": False}
    return load_config(None, arguments.set, own).config


def run_tlkit(arguments: argparse.Namespace) -> Answer:
    return time_finetune(arguments, make_config)


SIDES = {
    "tlkit": Side(run_tlkit),
    "plain Keras": Side(run_keras),
    "PyTorch": Side(run_pytorch, needs=("torch", "efficientnet_lite_pytorch")),
}


if __name__ == "__main__":
    main()
