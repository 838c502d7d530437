"""YAML as people mean it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tlkit.errors import ConfigError, StorageError
from tlkit.places import require_local
from tlkit.zoo.yaml_limits import check_yaml


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        StorageError: The file cannot be read.
        ConfigError: It is not UTF-8, not YAML, not a mapping, or names a key twice; or it is on an object
            store.
    """
    require_local(path, "A config")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    try:
        tree = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, received {type(tree).__name__}.")
    return tree


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError."""
    check_yaml(text)
    # A subclass of SafeLoader that resolves fewer scalars than it: safe.
    return yaml.load(text, Loader=CoreLoader)


def to_yaml(tree: Mapping[str, Any]) -> str:
    """The YAML text of a tree of plain values; `parse_yaml` gives the same tree back."""
    return yaml.dump(dict(tree), Dumper=CoreDumper, sort_keys=False, allow_unicode=True)


_MERGE = "tag:yaml.org,2002:merge"
_CORE_SCALARS = [
    ("tag:yaml.org,2002:null", re.compile(r"(null|Null|NULL|~|)\Z")),
    ("tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z")),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z"),
    ),
    (_MERGE, re.compile(r"<<\Z")),
]


class CoreLoader(yaml.SafeLoader):
    """The scalars of YAML 1.2's core schema, keys that are always text, and no key twice.

    YAML 1.1 reads the class names `no` and `on` as booleans, the folder `2024-01-05` as a date, `010` as 8,
    `12:30` as 750, and the number `1e-4` as text.
    """

    yaml_implicit_resolvers = {None: _CORE_SCALARS}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE]
        twice = next((name for name, times in Counter(key.value for key in keys).items() if times > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                problem=f"the key {twice!r} is there twice", problem_mark=node.start_mark
            )
        for key in keys:
            key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


class CoreDumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as something else than text."""

    yaml_implicit_resolvers = {
        **yaml.SafeDumper.yaml_implicit_resolvers,
        None: _CORE_SCALARS,
    }
