"""tlkit export: a run as a SavedModel that takes encoded pictures, or strings."""

from __future__ import annotations

import click

from tlkit.cli.options import json_option, overwrite_option, trust_option


@click.command(short_help="Write a run's SavedModel.")
@click.argument("run", type=click.Path())
@click.option(
    "--to", "target", required=True, type=click.Path(), help="The folder to write, for example sm/1."
)
@click.option(
    "--client-preprocessing",
    is_flag=True,
    help="Export a run with NLTK steps: whoever calls the model must do them.",
)
@trust_option
@overwrite_option
@json_option
def export(
    run: str, target: str, client_preprocessing: bool, trust: bool, overwrite: bool, as_json: bool
) -> None:
    """Write a run's SavedModel, with the preprocessing inside, and check what was written."""
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.cli.output import print_json
    from tlkit.workflows import export_run

    written = export_run(run, target, overwrite, client_preprocessing, trust=trust)
    if as_json:
        print_json({"run": run, "export": written})
    else:
        click.echo(f"SavedModel  {written}")
