"""tlkit evaluate: the metrics of a run, on its own test split or on other data."""

from __future__ import annotations

import click

from tlkit.cli.options import json_option, trust_option


@click.command(short_help="Measure a run on its test split, or on other data.")
@click.argument("run", type=click.Path())
@click.option(
    "--data", help="A folder or table of the same form as the run's data. Default: the run's test split."
)
@trust_option
@json_option
def evaluate(run: str, data: str | None, trust: bool, as_json: bool) -> None:
    """Measure a run on its own test split, or on other data."""
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.cli.output import print_json
    from tlkit.cli.report import print_metrics
    from tlkit.workflows import evaluate_run

    metrics = evaluate_run(run, data, trust=trust)
    if as_json:
        print_json(metrics)
    else:
        print_metrics({data or "test": metrics})
