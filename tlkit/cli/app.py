"""The `tlkit` command: its subcommands, and how errors become one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from tlkit import __version__
from tlkit.cli.lazy import LazyGroup
from tlkit.errors import InternalError, Interrupted, TlkitError

INTERRUPTED = 130

COMMANDS = {
    "finetune": "tlkit.cli.finetune:finetune",
    "demo": "tlkit.cli.demo:demo",
    "launch": "tlkit.cli.launch:launch",
    "lr-find": "tlkit.cli.lr_find:lr_find",
    "evaluate": "tlkit.cli.evaluate:evaluate",
    "predict": "tlkit.cli.predict:predict",
    "export": "tlkit.cli.export:export",
    "runs": "tlkit.cli.runs:runs",
    "data": "tlkit.cli.data:data",
    "zoo": "tlkit.cli.zoo:zoo",
    "cache": "tlkit.cli.cache:cache",
    "config": "tlkit.cli.config:config",
    "doctor": "tlkit.cli.doctor:doctor",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Mistakes that tlkit understands are one line on standard error; anything else is a bug and keeps its
    traceback (Python then exits with 1).
    """
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"Error: {_one_line(error)}", err=True)
        return error.exit_code
    except TlkitError as error:
        if isinstance(error, InternalError):
            traceback.print_exc()
        click.echo(f"\n{error}" if isinstance(error, Interrupted) else f"Error: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as interrupt:
        click.echo(f"\n{str(interrupt) or 'Interrupted.'}", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`tlkit zoo list | head`) has what it wanted. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: list[str]) -> int:
    app = _make_app()
    # Not `app.main()`: that turns a closed pipe and Ctrl-C into exit codes of its own.
    with app.make_context("tlkit", arguments) as context:
        code = app.invoke(context)
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _one_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    see = f" See: {context.command_path} --help" if context else ""
    return " ".join(error.format_message().split()) + see


def _make_app() -> click.Group:
    @click.group(
        cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
    )
    @click.version_option(__version__, prog_name="tlkit", message="%(prog)s %(version)s")
    def app() -> None:
        """Fine-tune a pretrained backbone on your own images or texts.

        \b
        Try it:        tlkit demo                            tlkit demo --text
        Your images:   tlkit finetune --data photos/         (one folder per class)
        Your texts:    tlkit finetune --data reviews.csv     (columns text and label)
        """

    return app
