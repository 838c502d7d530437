"""tlkit data: look at examples without training on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tlkit.cli.lazy import LazyGroup
from tlkit.cli.options import chosen_options, config_options, json_option, split_arguments
from tlkit.cli.output import print_facts, print_json, print_table
from tlkit.errors import ConfigError, DataCheckError

if TYPE_CHECKING:
    from tlkit.data import CheckReport

SHOWN = 20


@click.group(cls=LazyGroup, short_help="Look at examples without training on them: check.")
def data() -> None:
    """Look at examples without training on them."""


@data.command()
@click.argument("source", metavar="PATH")
@click.argument("arguments", nargs=-1, metavar="[key.path=value]...")
@config_options("--task")
@click.option("--label", "labels", multiple=True, help="A table's label column; may be given several times.")
@json_option
def check(
    source: str, arguments: tuple[str, ...], labels: tuple[str, ...], as_json: bool, **parameters: Any
) -> None:
    """Count the pictures or texts of a folder, table, records or sample, and name what cannot be used.

    Exit code 3 where a run would refuse them.
    """
    from tlkit.config import load_config

    path, overrides = split_arguments(arguments)
    if path is not None:
        raise ConfigError(f"One PATH and key.path=value, received {path!r}. See: tlkit data check --help")
    options = {"data.source": source, **chosen_options(parameters)}
    if labels:
        options["data.columns.label"] = labels[0] if len(labels) == 1 else list(labels)
    config = load_config(None, overrides, options).config

    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.data import check as check_data

    report = check_data(config.data, config.task, pair=config.head.pair)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if not report.ok:
        raise DataCheckError(" ".join(report.problems))


def _print_report(report: CheckReport) -> None:
    facts = {
        "source": report.source,
        "examples": f"{report.examples:,}, {report.usable:,} usable",
        "splits": ", ".join(f"{name} {count:,}" for name, count in report.splits.items()),
        "largest / smallest class": report.balance,
        "empty": report.empty or None,
        "same content": f"{len(report.duplicates):,} groups, {len(report.conflicts):,} labelled differently",
    }
    print_facts({name: value for name, value in facts.items() if value is not None})
    splits = list(report.splits)
    _print_part(
        ["class", *splits],
        [[name, *(counts[split] for split in splits)] for name, counts in report.classes.items()],
    )
    unit = " (pixels)" if report.modality == "image" else ""
    spreads = {**{f"{name}{unit}": spread for name, spread in report.sizes.items()}, **report.values}
    _print_part(
        ["value", "min", "median", "max"], [[name, *spread.values()] for name, spread in spreads.items()]
    )
    findings = [*report.unreadable, *report.notes]
    _print_part(["path", "problem", "action"], [list(finding.values()) for finding in findings[:SHOWN]])
    same = [*report.conflicts, *(group for group in report.duplicates if group not in report.conflicts)]
    _print_part(
        ["same content", "labels"],
        [[list(group), "differ" if group in report.conflicts else "agree"] for group in same[:SHOWN]],
    )
    if max(len(findings), len(same)) > SHOWN:
        more = sum(max(len(found) - SHOWN, 0) for found in (findings, same))
        click.echo(f"… and {more:,} more: tlkit data check {report.source} --json")


def _print_part(columns: list[str], rows: list[list[Any]]) -> None:
    if rows and len(columns) > 1:
        click.echo()
        print_table(columns, rows)
