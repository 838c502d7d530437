"""What is wrong with a config, in a line per mistake that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from tlkit.config.base import Options
from tlkit.config.plan import PLANS, STAGES, StageSpec
from tlkit.config.run import RunConfig


def describe_problems(error: pydantic.ValidationError, tree: Mapping[str, Any]) -> list[str]:
    """One line per wrong key or value, with its dotted path and the nearest known key.

    `tree` is what was validated. Where a value may be of several kinds, pydantic lists a mistake per kind;
    they become one line here.
    """
    unknown: list[str] = []
    wrong: dict[str, list[Any]] = {}
    for problem in error.errors():
        if problem["type"] == "extra_forbidden":
            unknown.append(_unknown_key(problem["loc"], tree))
        else:
            wrong.setdefault(".".join(_path(problem["loc"], tree)), []).append(problem)
    return unknown + [_wrong_value(path, problems) for path, problems in wrong.items()]


def _unknown_key(location: tuple[int | str, ...], tree: Mapping[str, Any]) -> str:
    *parents, key = _path(location, tree)
    siblings = list(_model_at(location[:-1]).model_fields)
    nearest = [".".join([*parents, name]) for name in _near(key, siblings)] or _near_path(key)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else f" (known: {', '.join(siblings)})"
    return f"unknown key {'.'.join([*parents, key])!r}{hint}"


def _wrong_value(path: str, problems: list[Any]) -> str:
    received = problems[0]["input"]
    messages = list(dict.fromkeys(_message(problem) for problem in problems))
    message = " or ".join([messages[0], *(text.removeprefix("should be ") for text in messages[1:])])
    said = "received" in message or repr(received) in message
    if problems[0]["type"] != "missing" and not said and not isinstance(received, Mapping | list):
        message = f"{message}, received {received!r}"
    return f"{path}: {message}" if path else message


def _message(problem: Any) -> str:
    if problem["type"] == "missing":
        return "is needed"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "should be a mapping of keys"
    text: str = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    text = text.partition(", unable to parse")[0].removesuffix("valid ")
    return text[:1].lower() + text[1:]


def _path(location: tuple[int | str, ...], tree: Any) -> list[str]:
    """The keys and indices of a location; pydantic puts the names of the kinds that it tried between them."""
    path: list[str] = []
    node = tree
    for place, part in enumerate(location):
        if _holds(node, part):
            path.append(str(part))
            node = node[part]
        elif isinstance(node, Mapping) and place == len(location) - 1 and part not in (*PLANS, STAGES):
            path.append(str(part))  # a key that is missing
    return path


def _holds(node: Any, part: int | str) -> bool:
    if isinstance(node, Mapping):
        return part in node
    return isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)


def _model_at(location: tuple[int | str, ...]) -> type[Options]:
    model: type[Options] = RunConfig
    for place, part in enumerate(location):
        if location[place - 1] == "plan" and part in PLANS:
            model = PLANS[str(part)]
        elif part == STAGES:
            model = StageSpec
        elif part in model.model_fields and isinstance(model.model_fields[str(part)].default, Options):
            model = type(model.model_fields[str(part)].default)
    return model


def _near(key: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(key, list(names), n=1, cutoff=0.7)


def _near_path(key: str) -> list[str]:
    """The dotted path of a key that was written at the wrong level."""
    paths = {path.rpartition(".")[2]: path for path in _all_paths(RunConfig)}
    return [paths[name] for name in _near(key, paths)]


def _all_paths(model: type[Options], prefix: str = "") -> list[str]:
    paths = []
    for name, field in model.model_fields.items():
        nested = isinstance(field.default, Options) and name != "plan"
        paths += _all_paths(type(field.default), f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return paths
