"""tlkit finetune: train a model on someone's own examples."""

from __future__ import annotations

from typing import Any

import click

from tlkit.cli.options import (
    chosen_options,
    config_options,
    json_option,
    overwrite_option,
    split_arguments,
)
from tlkit.errors import ConfigError


@click.command(short_help="Fine-tune a backbone on your own images or texts.")
@click.argument("arguments", nargs=-1, metavar="[CONFIG.yaml] [key.path=value]...")
@config_options()
@overwrite_option
@click.option(
    "--resume", is_flag=True, help="Go on with the run in --out from its last save, or begin it there."
)
@click.option(
    "--dry-run", is_flag=True, help="Show config, layer groups, stages and an estimate; train nothing."
)
@click.option(
    "--compare",
    "changes",
    multiple=True,
    metavar="key.path=value",
    help="Train a second run with this changed, and show both.",
)
@json_option
def finetune(
    arguments: tuple[str, ...],
    overwrite: bool,
    resume: bool,
    dry_run: bool,
    changes: tuple[str, ...],
    as_json: bool,
    **parameters: Any,
) -> None:
    """Fine-tune a pretrained backbone on your own images or texts.

    No config file is needed. Options and key.path=value win over the file; `tlkit config` lists every key.

    \b
    tlkit finetune --data photos/
    tlkit finetune --data reviews.csv
    tlkit finetune --data pairs.csv --task pair data.columns.label=score
    tlkit finetune --data photos/ --plan gradual --epochs 5 head.dropout=0.3
    tlkit finetune config.yaml --seed 1
    tlkit finetune --data reviews.csv --compare preprocessing.sequence_length=64
    tlkit finetune --out runs/photos-1 --resume
    """
    from tlkit.cli.report import print_comparison, print_dry_run, print_next_steps, print_run
    from tlkit.cluster import is_chief
    from tlkit.config import load_config

    path, overrides = split_arguments(arguments)
    options = chosen_options(parameters)
    config = load_config(path, overrides, options).config
    other = load_config(path, [*overrides, *changes], options).config
    if resume and (overwrite or dry_run or changes):
        raise ConfigError("--resume goes with neither --overwrite nor --dry-run nor --compare.")
    if config.data.source is None and not resume:
        raise ConfigError(
            "No data. Add --data FOLDER (one folder per class) or --data TABLE.csv, or try: tlkit demo"
        )

    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.workflows import compare_runs, plan_finetune, run_finetune

    if dry_run:
        print_dry_run(plan_finetune(config), as_json)
        return
    if changes:
        comparison = compare_runs(config, other, changes, overwrite)
        if is_chief(config.strategy):
            print_comparison(comparison, as_json)
        return
    run = run_finetune(config, overwrite=overwrite, resume=resume)
    if not is_chief(config.strategy):
        return
    print_run(run, as_json)
    if not as_json:
        print_next_steps(run)
