"""Add a backbone to the user's own zoo file: load it, work out its entry, write it down."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tlkit.backbones import Backbone, describe, load, with_input
from tlkit.backbones.saved_model_describe import UNLIMITED
from tlkit.config.scaling import make_scaling
from tlkit.errors import ConfigError
from tlkit.freezing import group_layers
from tlkit.progress import spinner
from tlkit.results import write_text
from tlkit.zoo import TextInput, ZooEntry
from tlkit.zoo.entry import Tokenizer
from tlkit.zoo.reference import FORMS, parse_reference, pinned
from tlkit.zoo.registry import entries, read_zoo, users_zoo, zoo_file
from tlkit.zoo.sample import SAMPLES
from tlkit.zoo.saved_model_files import is_saved_model
from tlkit.zoo.source import FileSource, HubSource, Source
from tlkit.zoo.users_zoo import NEW_FILE, write_entry


@dataclass(frozen=True)
class Added:
    """An entry that was worked out. `groups` has the parameters of each layer group, input to output; `file`
    is where it was written, None where it was only shown."""

    entry: ZooEntry
    groups: Mapping[str, int]
    file: Path | None


def add_to_zoo(
    name: str,
    source: str,
    *,
    trust: bool = False,
    license: str | None = None,  # noqa: A002 - the field's own name
    citation: str | None = None,
    scaling: Any = None,
    image_size: int | None = None,
    output: str | None = None,
    preprocessing: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Added:
    """Load the backbone that `source` names, work out its zoo entry, and write it to the user's own zoo file.

    Args:
        name: What the entry will be called.
        source: A reference (see `tlkit.zoo.reference`); a wheel's hash is worked out where it is not given.
        trust: Let a SavedModel through whose operations read files or run code.
        license: Of the weights; their source does not tell.
        citation: Whom to cite.
        scaling: How pictures are scaled: a name (`raw`, `unit`, `symmetric`, `imagenet`, `caffe`) or fields.
        image_size: In pixels, of a model that takes any.
        output: The layer (of a `.keras` model) or the output (of a SavedModel) to take features from.
        preprocessing: Of a SavedModel for texts that takes tokens: the reference of the SavedModel that makes
            them of strings.
        overwrite: Replace an entry of that name, or lay it over one of tlkit's own.
        dry_run: Write nothing.

    Raises:
        TlkitError: The backbone cannot be had or used, or the entry cannot be written.
    """
    file = _file_for(name, overwrite)
    try:
        chosen = make_scaling(scaling)
    except ValueError as error:
        raise ConfigError(f"scaling: {error}") from error
    with _there(file):
        found = parse_reference(pinned(source))
        with spinner(f"Loading {source}"):
            if isinstance(found, ZooEntry):
                renamed = found.model_copy(update={"name": name})
                entry = with_input(renamed, scaling=chosen, image_size=image_size)
            else:
                named = _with_output(found, output)
                entry = describe(named, name, scaling=chosen, image_size=image_size, trust=trust)
            if preprocessing is not None:
                entry = _of_strings(entry, preprocessing)
            if license is not None:
                entry = entry.model_copy(update={"license": license, "license_source": None})
            if citation is not None:
                entry = entry.model_copy(update={"citation": citation})
            backbone = load(entry, trust=trust)
        entry = backbone.entry.model_copy(update={"params": backbone.model.count_params()})
        groups = group_parameters(backbone)
        if not dry_run:
            write_entry(file, entry, overwrite=overwrite)
    return Added(entry, groups, None if dry_run else file)


def unfilled(entry: ZooEntry) -> Backbone:
    """The backbone of an entry without its weights, as far as it can be built without them."""
    return load(entry, weights=entry.constructor is None)


def group_parameters(backbone: Backbone) -> dict[str, int]:
    """How many parameters each layer group has. Raises ConfigError where the groups do not fit the layers."""
    sizes = {weight.path: int(keras.ops.size(weight)) for weight in backbone.model.weights}
    return {
        group.name: sum(sizes[path] for path in group.weights if path in sizes)
        for group in group_layers(backbone)
    }


def _file_for(name: str, overwrite: bool) -> Path:
    """The user's zoo file. Raises ConfigError where the entry may not go there, before anything is loaded."""
    if name in FORMS:
        raise ConfigError(f"{name!r} cannot be a zoo name: it begins references such as {FORMS[name]}")
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise ConfigError(
            f"{name!r} cannot be a zoo name: letters, digits and _ - . +, beginning with a letter or a digit"
        )
    if name in SAMPLES:
        raise ConfigError(f"{name!r} is the name of sample data: choose another name")
    file = users_zoo()
    if file is None:
        raise ConfigError(
            "model_zoo.yaml in the working folder is tlkit's own. Name a file of your own in TLKIT_ZOO, or "
            "work in another folder"
        )
    own = [entry.name for entry in read_zoo(file)] if file.exists() else []
    if not overwrite and name in own:
        raise ConfigError(f"{file} has an entry {name!r} already: choose another name, or --overwrite")
    if not overwrite and name in [entry.name for entry in entries(zoo_file())]:
        raise ConfigError(f"{name!r} is an entry of tlkit's own: choose another name, or --overwrite")
    return file


@contextmanager
def _there(file: Path) -> Iterator[None]:
    """Have the zoo file while its first entry is worked out: one that TLKIT_ZOO names must be there."""
    made = not file.exists()
    if made:
        write_text(file, NEW_FILE)
    try:
        yield
    finally:
        if made and file.is_file() and file.read_text(encoding="utf-8") == NEW_FILE:
            file.unlink()


def _of_strings(entry: ZooEntry, preprocessing: str) -> ZooEntry:
    """The entry of a SavedModel whose tokens another SavedModel makes; whether they fit shows in loading."""
    before = parse_reference(preprocessing)
    if not is_saved_model(entry) or not isinstance(before, HubSource):
        raise ConfigError(f"preprocessing: {preprocessing!r} for {entry.name!r}: both must be SavedModels")
    takes = TextInput(sequence_length=UNLIMITED, tokenizer=Tokenizer(kind="strings"), preprocessing=before)
    return entry.model_copy(update={"modality": "text", "input": takes, "notes": ()})


def _with_output(source: Source, output: str | None) -> Source:
    if output is None:
        return source
    if not isinstance(source, FileSource | HubSource):
        raise ConfigError(
            f"output: for .keras files and SavedModels, not for a source of kind {source.kind!r}"
        )
    return source.model_copy(update={"output": output})
