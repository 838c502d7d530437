"""Names for the variables of a SavedModel, and which of them belong to a BatchNorm."""

from __future__ import annotations

import re
from collections.abc import Sequence

import tensorflow as tf

_STATISTICS = re.compile(r"(.*?)moving_(mean|var|variance)$")
_SCALES = ("gamma", "beta", "scale", "offset")


def variable_names(variables: Sequence[tf.Variable]) -> list[str]:
    """A name for each variable that Keras and its optimizers take: without `/` and `:`, no two alike."""
    names: list[str] = []
    for variable in variables:
        name = re.sub(r"[^\w.]", ".", variable.name.removesuffix(":0")).strip(".") or "variable"
        number, unique = 1, name
        while unique in names:
            number, unique = number + 1, f"{name}_{number}"
        names.append(unique)
    return names


def batch_norm_names(names: Sequence[str]) -> set[str]:
    """Those of BatchNorms: moving statistics, and scale and shift beside them."""
    prefixes = {match[1] for name in names if (match := _STATISTICS.match(_without_number(name)))}
    return {
        name
        for name in names
        for prefix in prefixes
        if _STATISTICS.match(_without_number(name))
        or _without_number(name) in {f"{prefix}{scale}" for scale in _SCALES}
    }


def _without_number(name: str) -> str:
    return re.sub(r"_\d+$", "", name)
