"""Reading a config: defaults, then the file, then options, then dotted overrides."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from tlkit.config.run import RunConfig
from tlkit.errors import ConfigError, StorageError


@dataclass(frozen=True)
class LoadedConfig:
    """A resolved config, and for every dotted path where its value came from."""

    config: RunConfig
    origins: dict[str, str]


def load_config(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> LoadedConfig:
    """Resolve a config.

    Args:
        source: A YAML file, a tree of plain values, or None for the defaults alone.
        overrides: `key.path=value` strings; values are YAML. They win over everything.
        options: Dotted path to value, as given by command-line options. They win over the file.

    Raises:
        ConfigError: All that is wrong with the keys and values, together.
        StorageError: The file cannot be read.
    """
    name = str(source) if isinstance(source, str | Path) else "config"
    tree = read_yaml(source) if isinstance(source, str | Path) else copy.deepcopy(dict(source or {}))
    origins = {dotted: name for dotted in flatten(tree)}
    for dotted, value in (options or {}).items():
        set_path(tree, dotted, value)
        _mark(origins, dotted, value, "option")
    for override in overrides:
        dotted, value = parse_override(override)
        set_path(tree, dotted, value)
        _mark(origins, dotted, value, "override")
    config = validate(tree, where=name)
    return LoadedConfig(config, {dotted: _origin(origins, dotted) for dotted in flatten(dump(config))})


def validate(tree: Mapping[str, Any], where: str = "config") -> RunConfig:
    """A RunConfig from a tree of plain values.

    Raises:
        ConfigError: All wrong keys and values together, each with its path and the nearest known key.
    """
    try:
        return RunConfig.model_validate(tree)
    except pydantic.ValidationError as error:
        lines = [_describe(problem, tree) for problem in error.errors()]
    raise ConfigError(f"{where}: " + "; ".join(lines))


def dump(config: RunConfig) -> dict[str, Any]:
    """The config as plain values that YAML can hold."""
    tree: dict[str, Any] = config.model_dump(mode="json")
    return tree


def to_yaml(tree: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, received {type(tree).__name__}.")
    return tree


def parse_override(text: str) -> tuple[str, Any]:
    dotted, separator, value = text.partition("=")
    if not separator or not dotted.strip():
        raise ConfigError(f"Override {text!r} is not of the form key.path=value.")
    try:
        return dotted.strip(), _numbers(yaml.safe_load(value))
    except yaml.YAMLError:
        raise ConfigError(f"Override {text!r}: the value is not valid YAML.") from None


def set_path(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one value in a tree; lists are indexed by number, a plan's name becomes a mapping when needed."""
    *parents, last = dotted.split(".")
    node: Any = tree
    for key in parents:
        if isinstance(node, list):
            node = _item(node, key, dotted)
            continue
        child = node.get(key)
        if isinstance(child, str) and key == "plan":
            child = {"name": child}
        if child is None:
            child = {}
        if not isinstance(child, dict | list):
            raise ConfigError(f"Override {dotted!r}: {key!r} holds {child!r}, not a mapping.")
        node[key] = child
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


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() and value[:1] in "0123456789.-+" else value
        except ValueError:
            return value
    return value


def _mark(origins: dict[str, str], dotted: str, value: Any, origin: str) -> None:
    for path in [known for known in origins if known == dotted or known.startswith(f"{dotted}.")]:
        del origins[path]
    origins.update({path: f"{origin} {dotted}" for path in flatten(value, f"{dotted}.")})


def _origin(origins: Mapping[str, str], dotted: str) -> str:
    parts = dotted.split(".")
    candidates = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    if dotted == "plan.name":
        candidates = ["plan.name", "plan"]
    return next((origins[path] for path in candidates if path in origins), "default")


def _describe(problem: Any, tree: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    path = ".".join(part for part in location if not part.endswith("]") and "Plan" not in part and "Spec" not in part)
    if problem["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(location[-1], _known_keys(path), n=1, cutoff=0.5)
        return f"unknown key {path!r}" + (f" (did you mean {nearest[0]!r}?)" if nearest else "")
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    received = "" if "received" in message or isinstance(problem["input"], dict) else f", received {problem['input']!r}"
    return f"{path}: {message}{received}" if path else f"{message}{received}"


def _known_keys(path: str) -> list[str]:
    """The keys that are known beside the last part of `path`."""
    model: Any = RunConfig
    for part in path.split(".")[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = type(field.default) if field is not None else None
    return list(getattr(model, "model_fields", {}))
