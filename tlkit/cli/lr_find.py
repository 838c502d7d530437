"""tlkit lr-find: which learning rate suits, before training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from tlkit.cli.options import CONFIG_OPTIONS, chosen_options, config_options, json_option, split_arguments
from tlkit.cli.output import print_json, print_table
from tlkit.errors import ConfigError

if TYPE_CHECKING:
    from tlkit.workflows.lr_find import RateSearch

MEANINGS = {
    "valley": "the middle of the longest fall",
    "steep": "where the loss falls fastest",
    "minimum": "a tenth of the rate of the lowest loss",
}


@click.command(name="lr-find", short_help="Find a learning rate before training.")
@click.argument("arguments", nargs=-1, metavar="[CONFIG.yaml] [key.path=value]...")
@config_options(*(flag for flag in CONFIG_OPTIONS if flag not in ("--out", "--epochs", "--learning-rate")))
@click.option("--stage", help="Stage of the plan, such as head or all. Default: the first.")
@click.option("--seeds", type=int, default=1, show_default=True, help="Try so often; medians are given.")
@click.option("--lowest", type=float, default=1e-7, show_default=True, help="Rate of the first step.")
@click.option("--highest", type=float, default=10.0, show_default=True, help="Rate of the last step.")
@click.option("--steps", type=int, default=100, show_default=True, help="Steps, at most.")
@click.option("--out", "picture", metavar="FILE.png", help="Draw the curve: .png, .svg or .pdf.")
@json_option
def lr_find(
    arguments: tuple[str, ...],
    stage: str | None,
    seeds: int,
    lowest: float,
    highest: float,
    steps: int,
    picture: str | None,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Find a learning rate before training, by a range test: it rises step by step, and the loss tells.

    A stage trains a few steps of its own, with the options of `tlkit finetune`; nothing of it is kept.

    \b
    tlkit lr-find --data photos/
    tlkit lr-find --data reviews.csv --stage all --seeds 3
    tlkit lr-find --data photos/ --out rates.png
    """
    from tlkit.config import load_config

    path, overrides = split_arguments(arguments)
    config = load_config(path, overrides, chosen_options(parameters)).config
    if config.data.source is None:
        raise ConfigError("No data. Add --data FOLDER (one folder per class) or --data TABLE.csv")

    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.workflows.lr_find import check_picture, run_lr_find

    if picture is not None:
        check_picture(picture)
    found = run_lr_find(config, stage=stage, seeds=seeds, lowest=lowest, highest=highest, steps=steps)
    if picture is not None:
        found.save_plot(picture)
    if as_json:
        print_json(found)
    else:
        _print_found(found, picture, config.data.source)


def _print_found(found: RateSearch, picture: str | None, source: str) -> None:
    seeds = list(found.by_seed["seed"])
    rows = [
        [
            name,
            _rate(rate),
            *(_rate(each) for each in (found.by_seed[name] if len(seeds) > 1 else ())),
            MEANINGS[name],
        ]
        for name, rate in found.suggestions.items()
    ]
    by_seed = [f"seed {seed}" for seed in seeds] if len(seeds) > 1 else []
    print_table([f"stage {found.stage}", "median" if by_seed else "rate", *by_seed, "what it is"], rows)
    for note in found.notes:
        click.echo(f"\n{note}")
    if picture is not None:
        click.echo(f"\nPicture  {picture}")
    if found.suggestion is not None:
        click.echo(
            f"\nNext:  tlkit finetune --data {shlex.quote(source)} --learning-rate {_rate(found.suggestion)}"
        )


def _rate(rate: float | None) -> str:
    return "–" if rate is None or rate != rate else f"{rate:.1e}"
