"""tlkit cache: the stored features of frozen layers."""

from __future__ import annotations

import click

from tlkit.cli.options import json_option


@click.group(short_help="Stored features of frozen layers.")
def cache() -> None:
    """What frozen layers gave for each example, kept for later stages and runs (`cache` in the config)."""


@cache.command("list", short_help="List what is stored.")
@json_option
def list_cache(as_json: bool) -> None:
    """List the stored features, what was not used for longest first: it goes first when room is needed."""
    from datetime import datetime

    from tlkit.cli.output import print_json, print_table
    from tlkit.features import features_folder, stored_tables

    tables = stored_tables()
    if as_json:
        print_json(
            [
                {"key": each.key, "path": str(each.path), "bytes": each.size, "used": each.used, **each.about}
                for each in tables
            ]
        )
        return
    if not tables:
        click.echo(f"No features in {features_folder()}.")
        return
    rows = [
        [
            each.key,
            each.about.get("backbone", "?"),
            each.about.get("boundary", "?"),
            each.about.get("storage", "?"),
            f"{each.size / 1e6:.1f}",
            f"{datetime.fromtimestamp(each.used):%Y-%m-%d %H:%M}",
            "yes" if each.in_use else "",
        ]
        for each in tables
    ]
    print_table(["key", "backbone", "boundary", "storage", "MB", "last used", "in use"], rows)


@cache.command(short_help="Remove what is stored.")
def clear() -> None:
    """Remove all stored features, but those that a process has open. Runs do not need them."""
    from tlkit.features import clear as clear_features

    count, size = clear_features()
    click.echo(f"Removed {count} table{'s' * (count != 1)} of features, {size / 1e6:.1f} MB.")
