"""How a run, and a run that is only planned, are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlkit.cli.output import print_json, print_table, to_plain

if TYPE_CHECKING:
    from tlkit.workflows import Comparison, DryRun, Run
    from tlkit.zoo import SampleEntry


def print_run(run: Run, as_json: bool) -> None:
    """Metrics, stages and where everything is."""
    exported = exported_model(run)
    if as_json:
        print_json({"run": run.path, "export": exported, **to_plain(run.result)})
        return
    print_metrics(run.result.metrics)
    click.echo()
    print_stages(run)
    click.echo()
    click.echo(f"Run folder  {run.path}")
    if exported:
        click.echo(f"SavedModel  {exported}")


def print_licence(sample: SampleEntry) -> None:
    """Whose data this is, on standard error: standard output is for results."""
    click.echo(f"{sample.name}: {sample.description}, {sample.examples:,} examples", err=True)
    click.echo(f"Licence: {sample.license}", err=True)
    for citation in sample.citation:
        click.echo(f"Please cite: {citation}", err=True)


def exported_model(run: Run) -> Path | None:
    """The folder of the run's SavedModel, where it has one."""
    folder = Path(run.path) / "export"
    return folder if folder.is_dir() else None


def print_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """One row per metric, one column per split; what is not a single number is left to --json."""
    splits = list(metrics)
    names = dict.fromkeys(name for split in splits for name in metrics[split])
    rows = [[name, *(metrics[split].get(name) for split in splits)] for name in names]
    print_table(["metric", *splits], [row for row in rows if all(_is_number(value) for value in row[1:])])


def print_comparison(comparison: Comparison, as_json: bool) -> None:
    """The metrics of two runs side by side, and what the change did."""
    if as_json:
        print_json(comparison)
        return
    mine, others = comparison.run.metrics, comparison.other.metrics
    rows = [
        [name, mine[name], others[name], f"{-difference:+.4f}"]
        for name, difference in comparison.differences.items()
    ]
    print_table(["metric", "as given", " ".join(comparison.changes), "the change did"], rows)
    click.echo(f"\nRun folders  {comparison.run.path}\n             {comparison.other.path}")


def print_stages(run: Run) -> None:
    columns = ["stage", "trains", "parameters", "epochs", "seconds", "frozen weights", "BatchNorm"]
    rows = [
        [
            stage.name,
            _trained(stage.trained_groups, stage.adapters),
            stage.trainable_params,
            stage.epochs_run,
            f"{stage.seconds:.0f}",
            "unchanged" if stage.frozen_unchanged else "CHANGED",
            stage.batch_norm,
        ]
        for stage in run.result.stages
    ]
    print_table(columns, rows)


def print_next_steps(run: Run) -> None:
    click.echo(f"\nNext:  {_predict(run)}\n       tlkit evaluate {run.path} --data DATA")


def print_own_data_hint(run: Run) -> None:
    own = {
        "image": "tlkit finetune --data FOLDER      your own images, in one folder per class",
        "text": "tlkit finetune --data TABLE.csv   your own texts, with the columns text and label",
    }
    click.echo(f"\nNext:  {_predict(run)}\n       {own[run.entry.modality]}")


def _predict(run: Run) -> str:
    inputs = {"pair": '--text "..." --text-b "..."'}.get(run.config.task, '--text "..."')
    return f"tlkit predict {run.path} {'IMAGE...' if run.entry.modality == 'image' else inputs}"


def print_dry_run(plan: DryRun, as_json: bool) -> None:
    """The resolved config, the layer groups, the stages and what they would take."""
    from tlkit.config import dump, to_yaml

    if as_json:
        print_json(plan)
        return
    click.echo(to_yaml(dump(plan.config)))
    print_table(["layer group", "parameters"], plan.groups)
    click.echo()
    columns = ["stage", "trains", "epochs", "learning rate", "trainable parameters", "estimate"]
    rows = [
        [
            stage.name,
            _trained(stage.trained_groups, stage.adapters),
            stage.epochs,
            stage.learning_rate,
            stage.trainable_params,
            _duration(stage.seconds_estimate),
        ]
        for stage in plan.stages
    ]
    print_table(columns, rows)
    for stage in plan.stages:
        if stage.adapters is not None:
            click.echo(f"{stage.name}: {_adapters(stage.adapters)}")
        stored = (
            "no stored features" if stage.cache["mode"] == "off" else f"features on {stage.cache['mode']}"
        )
        click.echo(f"{stage.name}: {stored.replace('on memory', 'in memory')}: {stage.cache['reason']}")
        if stage.compute["reason"]:
            xla = " with XLA" if stage.compute["xla"] else ""
            click.echo(f"{stage.name}: {stage.compute['precision']}{xla}: {stage.compute['reason']}")
    for note in plan.notes:
        click.echo(note)


def _trained(groups: Sequence[str], adapters: Mapping[str, Any] | None) -> str:
    """`head`, `head, top`, `head, block5 to top`, or `head, adapters in block1 to block6`."""
    below = [name for name in groups if name != "head"]
    if not below:
        return "head"
    span = below[0] if len(below) == 1 else f"{below[0]} to {below[-1]}"
    return f"head, {span}" if adapters is None else f"head, adapters in {span}"


def _adapters(adapters: Mapping[str, Any]) -> str:
    targets = adapters["targets"]
    return (
        f"adapters of rank {adapters['rank']}, {adapters['params']:,} parameters, beside {len(targets)} "
        f"layers: {targets[0]}" + (f" … {targets[-1]}" if len(targets) > 1 else "")
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
