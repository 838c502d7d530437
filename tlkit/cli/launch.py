"""tlkit launch: one run in several processes on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from tlkit.cli.finetune import finetune
from tlkit.cli.options import chosen_options, split_arguments
from tlkit.errors import ConfigError

SHARED_BY_WORKERS = ("auto", "multi_worker")


@click.command(
    short_help="Fine-tune in several processes on this machine.",
    context_settings={"allow_interspersed_args": False},  # the options after finetune are finetune's
)
@click.option("--workers", type=click.IntRange(min=1), required=True, metavar="N", help="How many processes.")
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="How often all start again, with --resume, after one was killed or ended with exit code 1.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- finetune [ARGUMENTS]...")
def launch(workers: int, restarts: int, command: tuple[str, ...]) -> int:
    """Fine-tune in several processes on this machine, each with its share of the cores.

    They train one model (`strategy: multi_worker`). The first is the chief: it writes the run folder, and
    prints the results. What workers say meanwhile has their number before it. When one fails, the others are
    ended, and its exit code is the answer.

    \b
    tlkit launch --workers 2 -- finetune --data photos/
    tlkit launch --workers 2 --restarts 3 -- finetune --data photos/ --out runs/photos
    """
    _check(workers, restarts, command)

    from tlkit.launching import launch_workers

    # -P: a file of the working folder must not stand in for a module.
    start = [sys.executable, "-P", "-m", "tlkit", *command]
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    # What a worker that is killed leaves behind goes with this folder.
    with TemporaryDirectory(prefix="tlkit-launch-", ignore_cleanup_errors=True) as temporary:
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TMPDIR": temporary}
        return launch_workers(
            start,
            workers,
            log=sys.stderr,
            restarts=restarts,
            restart_command=start if "--resume" in command else [*start, "--resume"],
            environment={**os.environ, **own},
        )


def _check(workers: int, restarts: int, command: Sequence[str]) -> None:
    """Say what is wrong once, here, and not from every worker."""
    if not command:
        raise click.UsageError("Nothing to launch. Add a command: -- finetune --data photos/")
    name, *arguments = command
    if name != "finetune":
        raise click.UsageError(f"Only finetune can be launched, received {name!r}.")
    with finetune.make_context(name, arguments, parent=click.get_current_context().parent) as context:
        given = context.params
    path, overrides = split_arguments(given["arguments"])
    from tlkit.config import load_config

    config = load_config(path, overrides, chosen_options(given)).config
    if given["dry_run"]:
        raise ConfigError("--dry-run trains nothing: run it without launch.")
    if workers > 1 and config.strategy not in SHARED_BY_WORKERS:
        raise ConfigError(
            f"strategy: {config.strategy} is for one process, and {workers} workers were asked for. "
            f"Use strategy: {' or '.join(SHARED_BY_WORKERS)}."
        )
    if restarts and config.out is None:
        raise ConfigError("--restarts goes on in the run folder: name it, with --out RUN after finetune.")
    if restarts and (given["overwrite"] or given["changes"]):
        raise ConfigError("--restarts goes with neither --overwrite nor --compare.")
