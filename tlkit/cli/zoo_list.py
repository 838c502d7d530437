"""tlkit zoo list, search and info: what the zoo knows, and what of it is on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from tlkit.cli.options import json_option
from tlkit.cli.output import as_text, print_json, print_table
from tlkit.zoo import ImageInput, TextInput

if TYPE_CHECKING:
    from tlkit.zoo import ZooEntry


@click.command("list", short_help="List the backbones, all or some.")
@click.option("--modality", type=click.Choice(["image", "text", "other"]), help="What it takes.")
@click.option("--task", help="What it can be fine-tuned for: classify, regress, pair, tokens …")
@click.option("--min-params", metavar="N", help="Least number of parameters, such as 500k.")
@click.option("--max-params", metavar="N", help="Most parameters, such as 5M.")
@click.option("--license", "--licence", "license_", metavar="NAME", help="A part of the licence's name.")
@click.option("--source", metavar="KIND", help="wheel, keras, keras_hub, hub, url, file or none.")
@click.option("--offline", is_flag=True, help="Only what can be loaded now without a network (reads it).")
@click.option("--cached", is_flag=True, help="Only what has its weights on this machine, intact or not.")
@json_option
def list_entries(
    modality: str | None,
    task: str | None,
    min_params: str | None,
    max_params: str | None,
    license_: str | None,
    source: str | None,
    offline: bool,
    cached: bool,
    as_json: bool,
) -> None:
    """List the backbones, all or those that fit.

    \b
    tlkit zoo list --modality image --max-params 5M
    tlkit zoo list --task tokens --license apache
    tlkit zoo list --offline
    """
    from tlkit.zoo import entries
    from tlkit.zoo.filters import parse_count, select

    wanted = None if modality is None and task is None else _modalities(modality, task)
    found = select(
        entries(),
        modalities=wanted,
        min_params=None if min_params is None else parse_count(min_params),
        max_params=None if max_params is None else parse_count(max_params),
        license=license_,
        source=_checked_source(source),
        offline=offline,
        cached=cached,
    )
    print_entries(found, as_json)


@click.command(short_help="Find backbones by name, family, source or licence.")
@click.argument("text", nargs=-1, required=True)
@json_option
def search(text: tuple[str, ...], as_json: bool) -> None:
    """Find backbones by name, family, source or licence."""
    from tlkit.zoo import search as search_zoo

    print_entries(search_zoo(" ".join(text)), as_json)


@click.command(short_help="Everything that is known about one backbone.")
@click.argument("name")
@click.option("--groups", is_flag=True, help="Build it, and show the parameters of its layer groups.")
@json_option
def info(name: str, groups: bool, as_json: bool) -> None:
    """Everything that is known about one backbone: source, licence, citation, reported figures, layer groups,
    the zoo file that it is from, and where its weights are on this machine."""
    from tlkit.config import to_yaml
    from tlkit.zoo import get, verify
    from tlkit.zoo.presence import kept_at, size_of
    from tlkit.zoo.registry import file_of

    entry = get(name)
    place = kept_at(entry)
    facts: dict[str, Any] = {
        **entry.to_dict(),
        "registry": str(file_of(name)),
        "kept_at": None if place is None else str(place),
        "kept_bytes": None if place is None else size_of(place),
        "damaged": None if place is None else verify([entry])[name] == "damaged",
    }
    if groups:
        facts["group_params"] = _group_params(entry)
    if as_json:
        print_json(facts)
    else:
        click.echo(
            to_yaml({key: value for key, value in facts.items() if value not in ([], {}, None)}), nl=False
        )


def print_entries(found: Iterable[ZooEntry], as_json: bool) -> None:
    """The entries as JSON, or a line for each."""
    if as_json:
        print_json([entry.to_dict() for entry in found])
        return
    columns = ["name", "family", "parameters", "input", "source", "licence", "verified"]
    rows = [[e.name, e.family, e.params, shown_input(e), e.source.kind, e.license, e.verified] for e in found]
    print_table(columns, rows)


def shown_input(entry: ZooEntry) -> str:
    """The size of the input in its unit."""
    if isinstance(entry.input, TextInput):
        return f"{as_text(entry.input.sequence_length).replace(',', '')} tokens"
    return f"{entry.input.image_size} px" if isinstance(entry.input, ImageInput) else "tensors"


def _modalities(modality: str | None, task: str | None) -> set[str]:
    """Which kinds of input fit both."""
    from typing import get_args

    from tlkit.config.head import TEXT_TASKS, Task
    from tlkit.errors import UnknownNameError

    every = {"image", "text", "other"} if modality is None else {modality}
    if task is None:
        return every
    if task not in get_args(Task):
        raise UnknownNameError("task", task, get_args(Task))
    return every & ({"text"} if task in TEXT_TASKS else {"image", "text"})


def _checked_source(kind: str | None) -> str | None:
    from typing import get_args

    from tlkit.errors import UnknownNameError
    from tlkit.zoo.source import Source

    kinds = [get_args(each.model_fields["kind"].annotation)[0] for each in get_args(get_args(Source)[0])]
    if kind is not None and kind not in kinds:
        raise UnknownNameError("source", kind, kinds)
    return kind


def _group_params(entry: ZooEntry) -> dict[str, int]:
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.workflows.zoo_add import group_parameters, unfilled

    return group_parameters(unfilled(entry))
