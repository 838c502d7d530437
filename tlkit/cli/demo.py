"""tlkit demo: the same on sample data."""

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


@click.command(short_help="Fine-tune on sample data: solar cells, digits, or news.")
@click.argument("arguments", nargs=-1, metavar="[key.path=value]...")
@click.option("--data", "sample", help="The sample: elpv (the default), digits or bbc_news.")
@click.option("--text", is_flag=True, help="The same as --data bbc_news.")
@config_options("--out", "--seed")
@overwrite_option
@json_option
def demo(
    arguments: tuple[str, ...],
    sample: str | None,
    text: bool,
    overwrite: bool,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Fine-tune on sample data and say what to type next.

    \b
    tlkit demo
    tlkit demo --text
    tlkit demo --data digits
    """
    from tlkit import zoo
    from tlkit.cli.report import print_licence, print_own_data_hint, print_run
    from tlkit.cluster import is_chief
    from tlkit.config import load_config

    entry = zoo.get_sample(sample or ("bbc_news" if text else "elpv"))
    if text and entry.name != "bbc_news":
        raise ConfigError(f"--text is the sample bbc_news, received --data {sample} too. Give one of them.")
    path, overrides = split_arguments(arguments)
    if path is not None:
        raise ConfigError(f"The demo takes key.path=value only, received {path!r}. See: tlkit finetune")
    config = load_config(None, overrides, {"data.source": entry.name, **chosen_options(parameters)}).config
    if is_chief(config.strategy):
        print_licence(entry)

    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.workflows import run_finetune

    run = run_finetune(config, overwrite=overwrite)
    if not is_chief(config.strategy):
        return
    print_run(run, as_json)
    if not as_json:
        print_own_data_hint(run)
