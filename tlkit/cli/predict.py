"""tlkit predict: answers for pictures and texts."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from tlkit.cli.options import json_option, trust_option
from tlkit.errors import ConfigError, DataError

SHOWN_CHARACTERS = 60
SHOWN_NUMBERS = 3
NESTED = ("scores", "top_k", "words")


@click.command(short_help="Answer for pictures or texts.")
@click.argument("run", type=click.Path())
@click.argument("inputs", nargs=-1, metavar="[FILES|FOLDERS|-]...")
@click.option("--text", "texts", multiple=True, help="A text; may be given again.")
@click.option("--text-b", "texts_b", multiple=True, help="The second text of a pair, one for every --text.")
@click.option("--column", help="The tables' column of texts. Default: as in the run's config.")
@click.option("--column-b", help="The tables' column of second texts.")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Labels per input in --json."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV and nothing else.")
@trust_option
@json_option
def predict(
    run: str, inputs: tuple[str, ...], top: int, as_csv: bool, trust: bool, as_json: bool, **given: Any
) -> None:
    """Answer for pictures or texts. An input that cannot be used is named, and the others are answered.

    For a run on pictures: files and folders. For one on texts: tables, .txt files with one text each, or -
    for standard input with one text per line (the two texts of a pair with a tab between them).
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    if not inputs and not given["texts"]:
        raise click.UsageError("There is nothing to predict: give files, folders, --text, or -.")
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.cli.output import as_text, print_json, print_table
    from tlkit.workflows import load_run, predict_run
    from tlkit.workflows.predict_files import read_text_inputs

    loaded = load_run(run, trust=trust)
    is_text = loaded.entry.modality == "text"
    if is_text:
        answers = predict_run(loaded, read_text_inputs(loaded, inputs, lines=_lines(), **given), top=top)
    elif any(given.values()):
        raise ConfigError(f"{run} is a run on pictures: give files or folders.")
    else:
        answers = predict_run(loaded, list(inputs), top=top)
    columns, rows = _table(answers)
    if as_json:
        print_json(answers)
    elif as_csv:
        click.echo(_csv(columns, rows), nl=False)
    else:
        shorten = _short if is_text else lambda name, value: value
        shown = [map(shorten, columns, row) for row in rows]
        print_table(
            columns, [[as_text(value) if value is not None else "" for value in row] for row in shown]
        )
    if all("error" in answer for answer in answers):
        raise DataError(f"No input could be used: {answers[0]['error'] if answers else 'there was none'}")


def _lines() -> Iterator[str]:
    """Lines of standard input, in UTF-8 whatever the locale says; read only when asked for."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace")


def _table(answers: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """What each answer says in single values; scores of all classes and the top list are left to --json."""
    flat = [_flatten(answer) for answer in answers]
    columns = [name for name in dict.fromkeys(key for answer in flat for key in answer) if name not in NESTED]
    columns.sort(key=lambda name: name == "error")
    return columns, [[answer.get(name) for name in columns] for answer in flat]


def _flatten(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Tags and entities in one line each."""
    flat = dict(answer)
    if isinstance(flat["input"], list):
        flat["input"] = " ".join(str(word) for word in flat["input"])
    if "words" in flat:
        flat["tags"] = " ".join(word["tag"] for word in flat["words"])
    if "entities" in flat:
        flat["entities"] = "; ".join(f"{one['type']}: {one['text']}" for one in flat["entities"])
    return flat


def _short(name: str, value: Any) -> Any:
    """A value for a table: a text as one line, and not all numbers of a vector."""
    if name in ("input", "input_b") and isinstance(value, str):
        line = " ".join(value[: 10 * SHOWN_CHARACTERS].split())
        return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"
    if isinstance(value, list) and len(value) > 2 * SHOWN_NUMBERS:
        return ", ".join(f"{number:.4f}" for number in value[:SHOWN_NUMBERS]) + f", … ({len(value)} numbers)"
    return value


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        [";".join(map(str, value)) if isinstance(value, list) else value for value in row] for row in rows
    )
    return text.getvalue()
