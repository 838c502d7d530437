"""Read `model_zoo.yaml` into validated entries, and look one up."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from tlkit.errors import ConfigError, InternalError, UnknownNameError
from tlkit.places import require_local
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.sample import SAMPLES
from tlkit.zoo.yaml_limits import check_yaml

MOST_GROUPS = 10_000
COUNTS = ("num_groups", "num_layers", "layers")
STAGES = (
    "depths",
    "layerwise_depths",
    "stackwise_conv_filters",
    "stackwise_depth",
    "stackwise_kernel_sizes",
    "stackwise_num_blocks",
    "stackwise_num_repeats",
    "stackwise_stage_filters",
)


def entries(path: str | Path | None = None) -> tuple[ZooEntry, ...]:
    """Every entry of the zoo, in the order of the file.

    `path` is another zoo file of the same form; by default tlkit's own `model_zoo.yaml`, and the user's own
    (see `users_zoo`) over it.
    Raises ConfigError, which names the entry and the key, when a file is not a valid zoo.
    """
    if path:
        return read_zoo(Path(path))
    users = users_zoo()
    if users is None or (not users.exists() and not os.environ.get("TLKIT_ZOO")):
        return _own_entries()
    return tuple({entry.name: entry for entry in (*_own_entries(), *read_zoo(users))}.values())


def users_zoo() -> Path | None:
    """The user's own zoo file: what `TLKIT_ZOO` names, else `model_zoo.yaml` in the working folder.

    It need not exist. None where that file is tlkit's own, as in a checkout. Raises ConfigError for one on an
    object store.
    """
    chosen = os.environ.get("TLKIT_ZOO")
    require_local(chosen or "", "The zoo file (TLKIT_ZOO)")
    path = Path(chosen).expanduser() if chosen else Path("model_zoo.yaml").absolute()
    own = zoo_file()
    if path.is_file() and (path.samefile(own) or path.read_bytes() == own.read_bytes()):
        return None
    return path


def file_of(name: str) -> Path:
    """The zoo file that the entry called `name` is from: the user's own, where it is there, or tlkit's."""
    users = users_zoo()
    theirs = read_zoo(users) if users is not None and users.exists() else ()
    return users if users is not None and any(entry.name == name for entry in theirs) else zoo_file()


def get(name: str) -> ZooEntry:
    """The entry called `name`. Raises UnknownNameError with the nearest name."""
    for entry in entries():
        if entry.name == name:
            return entry
    raise UnknownNameError("backbone", name, [entry.name for entry in entries()], see="tlkit zoo list")


def search(text: str) -> tuple[ZooEntry, ...]:
    """The entries whose name, family, source, licence or modality holds every word of `text`."""
    words = text.lower().split()
    return tuple(entry for entry in entries() if all(word in _searchable(entry) for word in words))


def read_zoo(path: Path) -> tuple[ZooEntry, ...]:
    """Parse and validate a zoo file: `families:` (shared fields) and `entries:` (the backbones).

    An entry that names a family starts from the family's fields. A mapping is merged with the family's key
    by key, anything else replaces it. In a file of the user's, an entry that has the name of one of tlkit's
    own is laid over that in the same way if it has no `source`; else it stands in its place. A layer group
    with `{i}` in its name stands for one group per block of the constructor (see `expand_groups`). Raises
    ConfigError with every mistake that was found.
    """
    return parse_zoo(_text_of(path), path)


def parse_zoo(text: str, path: Path) -> tuple[ZooEntry, ...]:
    """The entries in the text of a zoo file. `path` is for messages; otherwise as `read_zoo`."""
    content = _parse_yaml(text, path)
    families, named = _mapping(content, "families", path), _mapping(content, "entries", path)
    unknown = sorted(set(content) - {"families", "entries"})
    if unknown:
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}. Allowed: families, entries.")
    read, mistakes = [], []
    for name, fields in named.items():
        if not isinstance(fields, Mapping):
            mistakes.append(f"{name}: must be a mapping, received {fields!r}")
            continue
        if name in SAMPLES:
            mistakes.append(f"{name}: is the name of sample data: choose another")
            continue
        family = fields.get("family")
        shared = families.get(family, {}) if isinstance(family, str) else {}
        whole = merge(shared, fields)
        below = shipped_fields(name) if path != zoo_file() else {}
        try:
            whole = whole if "source" in whole else merge(below, whole)
            read.append(ZooEntry.model_validate({**expand_groups(whole), "name": name}))
        except pydantic.ValidationError as error:
            if below and "source" in fields:
                mistakes.append(f"{name}: with a source it replaces tlkit's own entry, and needs all fields")
            elif isinstance(family, str) and family not in families and not below:
                mistakes.append(f"{name}: this file's families have no {family!r} to take fields from")
            mistakes += [f"{name}.{_dotted(found['loc'])}: {found['msg']}" for found in error.errors()]
        except ConfigError as error:
            mistakes.append(f"{name}.{error}")
    if mistakes:
        raise ConfigError(f"{path}: {'; '.join(mistakes)}")
    return tuple(read)


def merge(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `shared`: mappings are merged key by key, anything else replaces."""
    merged = dict(shared)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(shared.get(key), Mapping)
        merged[key] = merge(shared[key], value) if both else value
    return merged


def expand_groups(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of an entry with a layer group for every block, as many as the constructor has.

    `block{i}: layer_{i0}` is repeated as often as one of the constructor's arguments says: `num_groups` (of
    blocks that share weights), `num_layers` or `layers`, or the length of a list with one item for each stage
    (see `STAGES`). `{i}` counts from 1 and `{i0}` from 0; `{next}` is the number after the last. Raises
    ConfigError for more groups than any backbone has.
    """
    groups = fields.get("layer_groups")
    if not isinstance(groups, Mapping) or not any("{i}" in str(name) for name in groups):
        return fields
    constructor = fields.get("constructor")
    arguments = constructor.get("arguments") if isinstance(constructor, Mapping) else None
    arguments = arguments if isinstance(arguments, Mapping) else {}
    count = next((arguments[name] for name in (*STAGES, *COUNTS) if name in arguments), None)
    count = len(count) if isinstance(count, list | tuple) else count
    if not isinstance(count, int):
        return fields  # refused, because "{i}" is left in the name of a group
    if count * sum("{i}" in str(name) for name in groups) > MOST_GROUPS:
        raise ConfigError(f"layer_groups: {count:,} blocks would make more than {MOST_GROUPS:,} groups")
    expanded = {}
    for name, pattern in groups.items():
        for number in range(1, count + 1) if "{i}" in str(name) else (None,):
            values = {"{next}": str(count + 1)}
            values |= {"{i}": str(number), "{i0}": str(number - 1)} if number else {}
            expanded[_filled(str(name), values)] = _filled(str(pattern), values)
    return {**fields, "layer_groups": expanded}


def _filled(text: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


def family_fields(name: str) -> dict[str, Any]:
    """The fields that the entries of a family share in tlkit's own zoo, as they are written there."""
    path = zoo_file()
    return dict(_mapping(_parse_yaml(_text_of(path), path), "families", path)[name])


def shipped_fields(name: str) -> dict[str, Any]:
    """The fields of tlkit's own entry called `name`; none where there is no such entry."""
    return next((entry.to_dict() for entry in _own_entries() if entry.name == name), {})


def zoo_file() -> Path:
    """`model_zoo.yaml`: inside the package when tlkit is installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "model_zoo.yaml", package.parent / "model_zoo.yaml"):
        if candidate.is_file():
            return candidate
    raise InternalError(f"model_zoo.yaml is missing from the installation at {package}: install tlkit again")


@functools.cache
def _own_entries() -> tuple[ZooEntry, ...]:
    return read_zoo(zoo_file())


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The zoo file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})") from error


def _parse_yaml(text: str, path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times faster
    try:
        if path != zoo_file():  # which nobody else wrote, and everybody waits for
            check_yaml(text)
        content = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:  # empty, or comments alone
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must be a mapping with 'entries', received {type(content).__name__}")
    return content


def _mapping(content: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key!r} must be a mapping of names, received {type(value).__name__}")
    return value


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _searchable(entry: ZooEntry) -> str:
    return " ".join((entry.name, entry.family, entry.source.kind, entry.license, entry.modality)).lower()
