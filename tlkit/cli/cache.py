"""tlkit cache: the stored features of frozen layers, and data that was copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tlkit.cli.options import json_option

if TYPE_CHECKING:
    from tlkit.features import StoredTable
    from tlkit.zoo.datasets import StoredDataset


@click.group(short_help="Stored features of frozen layers, and copies of data.")
def cache() -> None:
    """What frozen layers gave for each example, kept for later stages and runs (`cache` in the config); and
    data from elsewhere: of object stores, of Hugging Face, and what was compressed."""


@cache.command("list", short_help="List what is stored.")
@json_option
def list_cache(as_json: bool) -> None:
    """List the stored features, what was not used for longest first: it goes first when room is needed. And
    the copies of data, which stay until they are cleared."""
    from tlkit.cli.output import print_json
    from tlkit.features import features_folder, stored_tables
    from tlkit.zoo.datasets import stored_datasets

    tables, datasets = stored_tables(), stored_datasets()
    if as_json:
        print_json([*map(_plain, tables), *map(_plain, datasets)])
        return
    if tables:
        _print_tables(tables)
    else:
        click.echo(f"No features in {features_folder()}.")
    if datasets:
        click.echo()
        _print_datasets(datasets)


@cache.command(short_help="Remove what is stored.")
def clear() -> None:
    """Remove all stored features and copies of data, but those that a process has open. Runs do not need the
    features; data is copied again when it is needed."""
    from tlkit.features import clear as clear_features
    from tlkit.zoo.datasets import clear_datasets

    count, size = clear_features()
    click.echo(f"Removed {count} table{'s' * (count != 1)} of features, {size / 1e6:.1f} MB.")
    count, size = clear_datasets()
    if count:
        click.echo(f"Removed {count} cop{'y' if count == 1 else 'ies'} of data, {size / 1e6:.1f} MB.")


def _plain(each: StoredTable | StoredDataset) -> dict[str, object]:
    return {"key": each.key, "path": str(each.path), "bytes": each.size, "used": each.used, **each.about}


def _print_tables(tables: list[StoredTable]) -> None:
    from tlkit.cli.output import print_table

    rows = [
        [
            each.key,
            each.about.get("backbone", "?"),
            each.about.get("boundary", "?"),
            each.about.get("storage", "?"),
            *_facts(each),
        ]
        for each in tables
    ]
    print_table(["key", "backbone", "boundary", "storage", "MB", "last used", "in use"], rows)


def _print_datasets(datasets: list[StoredDataset]) -> None:
    from tlkit.cli.output import print_table

    rows = [[each.key, each.about.get("source", "?"), *_facts(each)] for each in datasets]
    print_table(["key", "data", "MB", "last used", "in use"], rows)


def _facts(each: StoredTable | StoredDataset) -> list[str]:
    from datetime import datetime

    used = f"{datetime.fromtimestamp(each.used):%Y-%m-%d %H:%M}"
    return [f"{each.size / 1e6:.1f}", used, "yes" if each.in_use else ""]
