"""tlkit predict: answers for files and folders of pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import click

from tlkit.cli.options import json_option
from tlkit.errors import DataError


@click.command(short_help="Answer for pictures.")
@click.argument("run", type=click.Path())
@click.argument("inputs", nargs=-1, required=True, metavar="FILES|FOLDERS...")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Labels per picture in --json."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV and nothing else.")
@json_option
def predict(run: str, inputs: tuple[str, ...], top: int, as_csv: bool, as_json: bool) -> None:
    """Answer for pictures. One that cannot be read is named, and the others are answered."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.cli.output import as_text, print_json, print_table
    from tlkit.workflows import predict_run

    answers = predict_run(run, list(inputs), top=top)
    columns, rows = _table(answers)
    if as_json:
        print_json(answers)
    elif as_csv:
        click.echo(_csv(columns, rows), nl=False)
    else:
        print_table(columns, [[as_text(value) if value is not None else "" for value in row] for row in rows])
    if all("error" in answer for answer in answers):
        raise DataError(f"No input could be used: {answers[0]['error'] if answers else 'there was none'}")


def _table(answers: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """What each answer says in single values; scores of all classes and the top list are left to --json."""
    nested = {"scores", "top_k"}
    columns = [
        name for name in dict.fromkeys(key for answer in answers for key in answer) if name not in nested
    ]
    columns.sort(key=lambda name: name == "error")
    return columns, [[answer.get(name) for name in columns] for answer in answers]


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        [";".join(map(str, value)) if isinstance(value, list) else value for value in row] for row in rows
    )
    return text.getvalue()
