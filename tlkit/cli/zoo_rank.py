"""tlkit zoo rank: which backbone suits the data, before training."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from tlkit.cli.options import chosen_options, config_options, json_option, split_arguments
from tlkit.cli.output import print_json, print_table
from tlkit.errors import ConfigError

if TYPE_CHECKING:
    from tlkit.workflows import Ranking

SHOWN = 6
_MB = 1e6


@click.command(short_help="Rank backbones by how well they suit the data, before training.")
@click.argument("arguments", nargs=-1, metavar="[key.path=value]...")
@config_options("--data", "--trust", "--task", "--image-size", "--sequence-length", "--seed")
@click.option(
    "--backbones",
    multiple=True,
    metavar="NAME[,NAME]...",
    help="Which ones; may be given several times. Default: the verified ones that are at hand.",
)
@click.option("--examples", type=int, default=2000, show_default=True, help="Most examples to use.")
@json_option
def rank(
    arguments: tuple[str, ...], backbones: tuple[str, ...], examples: int, as_json: bool, **parameters: Any
) -> None:
    """Rank backbones by how well their frozen features suit the labels. Nothing is trained.

    Training examples only. LogME: the evidence of a linear model on the features; k-NN: leave-one-out
    accuracy (macro F1, R²) of the 5 nearest neighbours. Higher is better.

    \b
    tlkit zoo rank --data photos/
    tlkit zoo rank --data photos/ --backbones efficientnet_lite0,efficientnet_lite2
    """
    from tlkit.config import load_config

    path, overrides = split_arguments(arguments)
    if path is not None:
        raise ConfigError(f"Only key.path=value here, received {path!r}. See: tlkit zoo rank --help")
    config = load_config(None, overrides, chosen_options(parameters)).config
    if config.data.source is None:
        raise ConfigError("No data. Add --data FOLDER (one folder per class) or --data TABLE.csv")

    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.workflows import run_rank

    names = [name.strip() for several in backbones for name in several.split(",") if name.strip()]
    ranking = run_rank(config, names or None, examples=examples)
    if as_json:
        print_json(ranking)
    else:
        _print_ranking(ranking, config.data.source)


def _print_ranking(ranking: Ranking, source: str) -> None:
    columns = ["backbone", "LogME", "k-NN", "parameters", "features", "input", "seconds", "peak memory"]
    rows = [
        [
            row.name,
            f"{row.logme:.4f}",
            f"{row.knn:.4f}",
            row.parameters,
            row.features,
            row.size,
            f"{row.seconds:.1f}",
            None if row.peak_memory is None else f"{row.peak_memory / _MB:,.0f} MB",
        ]
        for row in ranking.ranked
    ]
    print_table(columns, rows)
    used = f"{ranking.examples:,} of {ranking.training_examples:,} training examples"
    classes = f", {ranking.classes} classes" if ranking.classes else ""
    click.echo(f"\n{used}{classes}, task {ranking.task}, seed {ranking.seed}")
    for name, reason in ranking.failed.items():
        click.echo(f"Failed: {name}: {reason}")
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in ranking.left_out.items():
        names[reason].append(name)
    for reason, some in names.items():
        more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
        click.echo(f"Left out ({reason}): {', '.join(some[:SHOWN])}{more}")
    click.echo(f"\nNext:  tlkit finetune --data {source} --backbone {ranking.best}")
