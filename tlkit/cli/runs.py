"""tlkit runs: a table of runs."""

from __future__ import annotations

from pathlib import Path

import click

from tlkit.cli.options import json_option


@click.command(short_help="List runs.")
@click.argument("folder", type=click.Path(), required=False)
@json_option
def runs(folder: str | None, as_json: bool) -> None:
    """List the runs in a folder, the latest first. Default: `runs`, or this folder where there is none."""
    from tlkit.cli.output import print_json, print_table
    from tlkit.results import list_runs

    folder = folder or ("runs" if Path("runs").is_dir() else ".")
    rows = list_runs(folder)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"No runs in {Path(folder).resolve()}.")
        return
    columns = ["run", "data", "backbone", "task", "status", "test metric", "value", "minutes", "date"]
    print_table(
        columns,
        [
            [
                row.name,
                row.data,
                row.backbone,
                row.task,
                row.status,
                row.metric,
                row.value,
                row.minutes,
                row.date,
            ]
            for row in rows
        ],
    )
