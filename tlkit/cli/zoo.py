"""tlkit zoo: which backbones there are, and their files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlkit.cli.lazy import LazyGroup
from tlkit.cli.options import json_option
from tlkit.cli.output import print_facts, print_json, print_table
from tlkit.cli.report import print_licence
from tlkit.errors import DataCheckError, UnknownNameError
from tlkit.zoo import TextInput

if TYPE_CHECKING:
    from tlkit.zoo import ZooEntry


@click.group(cls=LazyGroup, short_help="The pretrained backbones: list, search, info, fetch, verify.")
def zoo() -> None:
    """The pretrained backbones."""


@zoo.command("list")
@json_option
def list_entries(as_json: bool) -> None:
    """List every backbone."""
    from tlkit.zoo import entries

    _print_entries(entries(), as_json)


@zoo.command()
@click.argument("text", nargs=-1, required=True)
@json_option
def search(text: tuple[str, ...], as_json: bool) -> None:
    """Find backbones by name, family, source or licence."""
    from tlkit.zoo import search as search_zoo

    _print_entries(search_zoo(" ".join(text)), as_json)


@zoo.command()
@click.argument("name")
@json_option
def info(name: str, as_json: bool) -> None:
    """Everything that is known about one backbone."""
    from tlkit.config import to_yaml
    from tlkit.zoo import get

    entry = get(name).to_dict()
    if as_json:
        print_json(entry)
    else:
        click.echo(to_yaml(entry), nl=False)


@zoo.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def fetch(names: tuple[str, ...], as_json: bool) -> None:
    """Download the weights of backbones, or sample data, into the cache folder."""
    fetched = {name: _fetch(name) for name in names}
    if as_json:
        print_json(fetched)
    else:
        print_facts(fetched)


@zoo.command()
@json_option
def verify(as_json: bool) -> None:
    """Check the files in the cache folder against their hashes."""
    from tlkit.zoo import verify as verify_zoo

    states = verify_zoo()
    if as_json:
        print_json(states)
    else:
        print_facts(states)
    damaged = [name for name, state in states.items() if state == "damaged"]
    if damaged:
        raise DataCheckError(
            f"Damaged: {', '.join(damaged)}. Fetch again: tlkit zoo fetch {' '.join(damaged)}"
        )


def _fetch(name: str) -> Path:
    from tlkit.zoo import entries, fetch_sample, fetch_weights, get, get_sample, samples

    sample_names = [sample.name for sample in samples()]
    names = [*sample_names, *(entry.name for entry in entries())]
    if name not in names:
        raise UnknownNameError("backbone or sample", name, names, see="tlkit zoo list")
    if name not in sample_names:
        return fetch_weights(get(name))
    sample = get_sample(name)
    print_licence(sample)
    return fetch_sample(sample)


def _input(entry: ZooEntry) -> str:
    size = entry.input
    return f"{size.sequence_length} tokens" if isinstance(size, TextInput) else f"{size.image_size} px"


def _print_entries(found: Iterable[ZooEntry], as_json: bool) -> None:
    if as_json:
        print_json([entry.to_dict() for entry in found])
        return
    columns = ["name", "family", "parameters", "input", "source", "licence", "verified"]
    rows = [[e.name, e.family, e.params, _input(e), e.source.kind, e.license, e.verified] for e in found]
    print_table(columns, rows)
