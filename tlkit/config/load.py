"""Reading a config: defaults, then the file, then options, then dotted overrides."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from tlkit.config.problems import describe_problems
from tlkit.config.run import RunConfig
from tlkit.config.yaml_file import parse_yaml, read_yaml
from tlkit.errors import ConfigError


@dataclass(frozen=True)
class LoadedConfig:
    """A resolved config, and for every dotted path where its value came from."""

    config: RunConfig
    origins: dict[str, str]


def load_config(
    source: str | Path | Mapping[str, Any] | RunConfig | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> LoadedConfig:
    """Resolve a config.

    Args:
        source: A YAML file, a tree of plain values, a RunConfig, or None for the defaults alone.
        overrides: `key.path=value` strings; values are YAML. They win over everything.
        options: Dotted path to value, as given by command-line options. They win over the file.

    Raises:
        ConfigError: All that is wrong with the keys and values, together; a file that sets `trust`.
        StorageError: The file cannot be read.
    """
    name = str(source) if isinstance(source, str | Path) else "config"
    tree = read_config(source)
    origins = dict.fromkeys(flatten(tree), name)
    for dotted, value in (options or {}).items():
        set_path(tree, dotted, value)
        _mark(origins, dotted, value, "option")
    for override in overrides:
        dotted, value = parse_override(override)
        set_path(tree, dotted, value)
        _mark(origins, dotted, value, "override")
    config = validate(tree, where=name)
    return LoadedConfig(config, {dotted: _origin(origins, dotted) for dotted in flatten(dump(config))})


def read_config(source: str | Path | Mapping[str, Any] | RunConfig | None) -> dict[str, Any]:
    """The plain values that a config sets, as a tree of the caller's own.

    Raises:
        ConfigError: A file is no YAML mapping, or sets `trust`, which only a person can.
        StorageError: A file cannot be read.
    """
    if isinstance(source, RunConfig):
        return source.model_dump(mode="json", exclude_unset=True)
    if not isinstance(source, str | Path):
        return copy.deepcopy(dict(source or {}))
    tree = read_yaml(source)
    if tree.get("trust"):
        raise ConfigError(
            f"{source}: trust cannot be given by a file, which may be somebody else's: use --trust "
            "(trust=True)"
        )
    return tree


def validate(tree: Mapping[str, Any], where: str = "config") -> RunConfig:
    """A RunConfig from a tree of plain values.

    Raises:
        ConfigError: All wrong keys and values together, each with its path and the nearest known key.
    """
    try:
        return RunConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        problems = describe_problems(error, tree)
    raise ConfigError(f"{where}: {'; '.join(problems)}")


def dump(config: RunConfig) -> dict[str, Any]:
    """The config as plain values that YAML can hold."""
    tree: dict[str, Any] = config.model_dump(mode="json")
    return tree


def parse_override(text: str) -> tuple[str, Any]:
    dotted, separator, value = text.partition("=")
    if not separator or not dotted.strip():
        raise ConfigError(f"Override {text!r} is not of the form key.path=value.")
    try:
        return dotted.strip(), parse_yaml(value)
    except yaml.YAMLError:
        raise ConfigError(f"Override {text!r}: the value is not valid YAML.") from None


def set_path(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one value in a tree; lists are indexed by number, a plan's name becomes a mapping when needed."""
    *parents, last = dotted.split(".")
    node: Any = tree
    for key in parents:
        child = _item(node, key, dotted) if isinstance(node, list) else node.get(key)
        if isinstance(child, str) and key == "plan":
            child = {"name": child}
        child = {} if child is None else child
        if not isinstance(child, dict | list):
            raise ConfigError(f"Override {dotted!r}: {key!r} holds {child!r}, not a mapping.")
        node[int(key) if isinstance(node, list) else key] = child
        node = child
    if isinstance(node, list):
        _item(node, last, dotted)
        node[int(last)] = value
    else:
        node[last] = value


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path to leaf value. Empty mappings and lists are leaves."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    leaves: dict[str, Any] = {}
    for key, value in items:
        leaves.update(flatten(value, f"{prefix}{key}."))
    return leaves or ({prefix[:-1]: tree} if prefix else {})


def _item(node: list[Any], key: str, dotted: str) -> Any:
    if not key.isdigit() or int(key) >= len(node):
        raise ConfigError(f"Override {dotted!r}: {key!r} is not an index of a list of {len(node)}.")
    return node[int(key)]


def _mark(origins: dict[str, str], dotted: str, value: Any, origin: str) -> None:
    for path in [known for known in origins if known == dotted or known.startswith(f"{dotted}.")]:
        del origins[path]
    origins.update(dict.fromkeys(flatten(value, f"{dotted}."), f"{origin} {dotted}"))


def _origin(origins: Mapping[str, str], dotted: str) -> str:
    """Where a value came from: set itself, or as part of something above it that was."""
    parts = dotted.split(".")
    candidates = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    if parts[0] == "plan" and dotted != "plan.name":
        candidates = [dotted]  # a plan that was named brings defaults of its own
    return next((origins[path] for path in candidates if path in origins), "default")
