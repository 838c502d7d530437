"""tlkit zoo: which backbones there are, and their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlkit.cli.lazy import LazyGroup
from tlkit.cli.options import json_option
from tlkit.cli.output import print_facts, print_json, print_table
from tlkit.cli.report import print_licence
from tlkit.errors import ConfigError, DataCheckError, UnknownNameError

if TYPE_CHECKING:
    from tlkit.zoo import Pruned, SampleEntry, ZooEntry

COMMANDS = {
    "list": "tlkit.cli.zoo_list:list_entries",
    "search": "tlkit.cli.zoo_list:search",
    "info": "tlkit.cli.zoo_list:info",
    "rank": "tlkit.cli.zoo_rank:rank",
    "add": "tlkit.cli.zoo_add:add",
}


@click.group(
    cls=LazyGroup,
    commands_at=COMMANDS,
    short_help="The pretrained backbones: list, search, info, rank, add, fetch, verify, prune.",
)
def zoo() -> None:
    """The pretrained backbones."""


@zoo.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--to", "folder", metavar="DIR", help="Also copy them to a folder, to take along.")
@json_option
def fetch(names: tuple[str, ...], folder: str | None, as_json: bool) -> None:
    """Download the weights of backbones, or sample data, into the cache folder.

    With --to, DIR becomes a cache folder of its own: where TLKIT_HOME names it, on a machine without a
    network, nothing is downloaded. Entries of your own zoo file are written to DIR/model_zoo.yaml.

    \b
    tlkit zoo fetch efficientnet_lite0 elpv --to usb_stick/
    """
    from tlkit.zoo import export_to
    from tlkit.zoo.export import exported_zoo

    if folder is not None and not folder.strip():
        raise ConfigError(f"--to: name a folder, received {folder!r}")
    chosen = [_find(name) for name in names]
    fetched = {each.name: _fetch(each) for each in _with_weights(chosen)}
    if folder is not None:
        fetched = export_to(folder, chosen)
    if as_json:
        print_json(fetched)
        return
    print_facts(fetched)
    if folder is not None:
        there, zoo_there = Path(folder).expanduser(), exported_zoo(folder)
        named = f" TLKIT_ZOO={zoo_there}" if zoo_there.exists() else ""
        click.echo(f"\nOn the other machine: export TLKIT_HOME={there} TLKIT_OFFLINE=1{named}")


@zoo.command()
@click.option(
    "--max-size", metavar="SIZE", help="Then free what was used longest ago, until this is left: 2GB."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@json_option
def prune(max_size: str | None, dry_run: bool, as_json: bool) -> None:
    """Free the cache folder of what no entry of the zoo names."""
    from tlkit.zoo import prune as prune_cache
    from tlkit.zoo.filters import parse_bytes

    freed = prune_cache(None if max_size is None else parse_bytes(max_size), dry_run=dry_run)
    if as_json:
        print_json(freed)
        return
    if not freed:
        click.echo("There is nothing to free.")
        return
    print_table(["freed" if not dry_run else "would be freed", "MB", "because"], _pruned_rows(freed))


@zoo.command()
@json_option
def verify(as_json: bool) -> None:
    """Check the files in the cache folder against their hashes."""
    from tlkit.zoo import verify as verify_zoo

    states = verify_zoo()
    if as_json:
        print_json(states)
    else:
        there = {name: state for name, state in states.items() if state in ("ok", "damaged")}
        print_facts(there)
        click.echo()
        print_facts(Counter(state for name, state in states.items() if name not in there))
    damaged = [name for name, state in states.items() if state == "damaged"]
    if damaged:
        raise DataCheckError(
            f"Damaged: {', '.join(damaged)}. Fetch again: tlkit zoo fetch {' '.join(damaged)}"
        )


def _find(name: str) -> ZooEntry | SampleEntry:
    from tlkit.zoo import entries, get, get_sample, samples

    sample_names = [sample.name for sample in samples()]
    names = [*sample_names, *(entry.name for entry in entries())]
    if name not in names:
        raise UnknownNameError("backbone or sample", name, names, see="tlkit zoo list")
    return get_sample(name) if name in sample_names else get(name)


def _with_weights(chosen: list[ZooEntry | SampleEntry]) -> list[ZooEntry | SampleEntry]:
    """Those that there is something to fetch of; all of them where there is none, which is an error."""
    there = [each for each in chosen if each.source.kind != "none"]
    for each in chosen if there else ():
        if each not in there:
            click.echo(f"{each.name} is trained from scratch: there are no weights to fetch", err=True)
    return there or chosen


def _fetch(chosen: ZooEntry | SampleEntry) -> Path:
    from tlkit.zoo import SampleEntry, fetch_sample, fetch_weights
    from tlkit.zoo.fetch import Fetchable
    from tlkit.zoo.libraries import preprocessing_of
    from tlkit.zoo.source import NoSource

    if isinstance(chosen, SampleEntry):
        print_licence(chosen)
        return fetch_sample(chosen)
    if isinstance(chosen.source, Fetchable | NoSource) and preprocessing_of(chosen) is None:
        return fetch_weights(chosen)
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()  # what downloads it needs it
    from tlkit.backbones import fetch_backbone

    return fetch_backbone(chosen)


def _pruned_rows(freed: Iterable[Pruned]) -> list[list[str]]:
    reasons = {"unknown": "nothing in the zoo names it", "old": "used longest ago"}
    return [[str(one.path), f"{one.size / 1e6:.1f}", reasons.get(one.reason, one.reason)] for one in freed]
