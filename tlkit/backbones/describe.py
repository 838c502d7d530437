"""From a source to a zoo entry: what can be worked out from the weights themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tlkit import zoo
from tlkit.backbones.keras_file import load_keras_file
from tlkit.backbones.keras_hub_describe import describe_keras_hub
from tlkit.backbones.keras_model import describe_keras_model
from tlkit.backbones.saved_model import describe_saved_model
from tlkit.errors import ConfigError
from tlkit.zoo.entry import ImageInput, Scaling, ZooEntry
from tlkit.zoo.fetch import fetch_source
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.reference import parse_reference, source_of_path
from tlkit.zoo.source import FileSource, HubSource, KerasHubSource, Source, UrlSource, WheelSource

Describer = Callable[..., ZooEntry]


def entry_of(reference: str, *, scaling: Scaling | None = None, trust: bool = False) -> ZooEntry:
    """The entry that a reference names (see `parse_reference`), or one that is worked out from its source.

    `scaling` wins over what the entry says. Raises as `parse_reference` and `describe` do.
    """
    found = parse_reference(reference)
    if isinstance(found, ZooEntry):
        return with_input(found, scaling=scaling)
    return describe(found, name_of(found), scaling=scaling, trust=trust)


def describe(
    source: Source,
    name: str,
    *,
    scaling: Scaling | None = None,
    image_size: int | None = None,
    trust: bool = False,
) -> ZooEntry:
    """The zoo entry of a source: parameters, input, layer groups, and the hash where there is a file.

    The weights are fetched, and loaded where nothing less tells what they are. What had to be assumed is in
    `entry.notes`; `scaling` and `image_size` (pixels) win over that. `trust` lets a SavedModel through whose
    operations read files or run code.
    Raises FetchError (cannot be had, damaged, refused) and ConfigError (tlkit cannot use it).
    """
    if source.kind not in DESCRIBERS:
        raise ConfigError(
            f"A source of kind {source.kind!r} does not tell what it is: {name!r} needs an entry"
        )
    entry = DESCRIBERS[source.kind](source, name, scaling=scaling, image_size=image_size, trust=trust)
    return with_input(entry, scaling=scaling, image_size=image_size)


def with_input(entry: ZooEntry, *, scaling: Scaling | None = None, image_size: int | None = None) -> ZooEntry:
    """The entry with another scaling or size of its pictures. Raises ConfigError where it takes none."""
    update = {name: value for name, value in (("scaling", scaling), ("image_size", image_size)) if value}
    if not update:
        return entry
    if not isinstance(entry.input, ImageInput):
        raise ConfigError(f"{', '.join(update)}: for pictures, but {entry.name!r} does not take any")
    notes = tuple(note for note in entry.notes if not note.startswith(tuple(f"{name}:" for name in update)))
    return entry.model_copy(update={"input": entry.input.model_copy(update=update), "notes": notes})


def name_of(source: Source) -> str:
    """A name for a source that has none, from its file, preset, package or handle."""
    fields = source.model_dump()
    address = str(
        fields.get("member")
        or fields.get("path")
        or fields.get("preset")
        or fields.get("handle")
        or fields["url"]
    )
    parts = [part for part in re.split(r"[/?#]", address) if part and part not in (".", "..")]
    while len(parts) > 1 and parts[-1].isdigit():  # a version says little alone
        parts.pop()
    stem = re.sub(r"\.(keras|weights\.h5|tar\.gz|tgz|tar|zip)$", "", parts[-1] if parts else address)
    return re.sub(r"[^\w.-]+", "_", stem).strip("._-") or "backbone"


def _describe_file(
    source: FileSource, name: str, *, scaling: Scaling | None, image_size: int | None, trust: bool
) -> ZooEntry:
    path = Path(source.path).expanduser()
    if not path.exists():
        fetch_source(source)  # says that it is not there
    pinned = source.model_copy(update={"sha256": source.sha256 or hash_of(path)})
    if path.is_dir():
        return zoo.entry_of_folder(path).model_copy(update={"name": name, "source": pinned})
    if path.name.endswith(".weights.h5"):
        raise ConfigError(
            f"{path} holds weights alone: say of what, by an entry in a zoo file with a constructor "
            "(see: tlkit zoo info) and source: {kind: file, path: …}, or save the whole model as .keras"
        )
    with zoo.open_copy(path, pinned.sha256) as copy:
        part = load_keras_file(copy, output=source.output)
    return describe_keras_model(part, name, pinned, scaling=scaling, image_size=image_size)


def _describe_fetched(
    source: WheelSource | UrlSource,
    name: str,
    *,
    scaling: Scaling | None,
    image_size: int | None,
    trust: bool,
) -> ZooEntry:
    """What came in a package or from the web is described as the file or folder that it is."""
    path = fetch_source(source)
    local = source_of_path(path)
    if source.member is not None:
        source = source.model_copy(update={"member_sha256": source.member_sha256 or hash_of(path)})
    if isinstance(local, HubSource):
        return _describe_hub(source, name, scaling=scaling, image_size=image_size, trust=trust)
    if isinstance(local, KerasHubSource):
        raise ConfigError(f"{path} is a preset of KerasHub, which reads it from a folder: name this path")
    entry = describe(local, name, scaling=scaling, image_size=image_size, trust=trust)
    return entry.model_copy(update={"source": source})


def _describe_hub(
    source: HubSource | WheelSource | UrlSource,
    name: str,
    *,
    scaling: Scaling | None,
    image_size: int | None,
    trust: bool,
) -> ZooEntry:
    entry = describe_saved_model(source, name, trust=trust)
    if not isinstance(entry.input, ImageInput):
        return entry
    hint = "Another: preprocessing.scaling=raw, unit, symmetric, imagenet"
    notes = tuple(f"{note}. {hint}" if note.startswith("scaling:") else note for note in entry.notes)
    return entry.model_copy(update={"notes": notes})


DESCRIBERS: Mapping[str, Describer] = {  # by the kind of the source
    "file": _describe_file,
    "hub": _describe_hub,
    "keras_hub": describe_keras_hub,
    "url": _describe_fetched,
    "wheel": _describe_fetched,
}
