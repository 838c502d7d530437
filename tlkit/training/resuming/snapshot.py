"""Variables and callbacks as plain values that a save can hold, and back, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tlkit.errors import ConfigError
from tlkit.results import is_plain
from tlkit.training.display import LiveDisplay

# What they hold is a file, a clock or a screen, and is made anew.
STATELESS = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard, LiveDisplay)
# A folder can move, and Keras turns the sign of `min_delta` when a callback sees its first epoch.
NOT_STATE = ("params", "_model", "validation_data", "filepath", "min_delta")


def take_variables(
    variables: Sequence[keras.Variable], strategy: tf.distribute.Strategy
) -> list[dict[str, Any]]:
    """The values of variables in their order; those of each replica, where they differ (metrics, random
    states)."""
    taken = []
    for variable in variables:
        values = [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        same = all(np.array_equal(values[0], value, equal_nan=True) for value in values[1:])
        taken.append({"path": variable.path, "values": values[:1] if same else values})
    return taken


def put_variables(
    variables: Sequence[keras.Variable], taken: Sequence[Mapping[str, Any]], strategy: tf.distribute.Strategy
) -> None:
    """Give variables the values that they had. Keras numbers the names of layers anew in one process: it is
    their order that counts.

    Raises:
        ConfigError: They are others: the code, the data or the backbone is not what it was.
    """
    known = [each["values"][0].shape for each in taken]
    found = [tuple(variable.shape) for variable in variables]
    if known != found:
        pairs = zip(taken, known, variables, found, strict=False)
        unlike = next(
            (
                f"{each['path']} {was} is {variable.path} {now}"
                for each, was, variable, now in pairs
                if was != now
            ),
            "the others are alike",
        )
        raise ConfigError(
            f"The save has {len(known)} variables and the run {len(found)} ({unlike}): the run was begun "
            "with other code or another backbone. Start anew: --overwrite"
        )
    for variable, each in zip(variables, taken, strict=True):
        copies = strategy.experimental_local_results(variable.value)
        values = each["values"] if len(each["values"]) > 1 else each["values"] * len(copies)
        for copy, value in zip(copies, values, strict=True):
            copy.assign(value)


def take_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> list[dict[str, Any]]:
    """What each callback keeps in attributes: numbers, text, arrays, and lists and tables of those."""
    return [{"kind": type(each).__name__, "state": _state(each)} for each in callbacks]


def put_callbacks(callbacks: Sequence[keras.callbacks.Callback], taken: Sequence[Mapping[str, Any]]) -> None:
    """Give callbacks what they kept: the first of a kind what the first of that kind had, and so on."""
    states: dict[str, list[dict[str, Any]]] = {}
    for each in taken:
        states.setdefault(each["kind"], []).append(each["state"])
    for callback in callbacks:
        of_kind = states.get(type(callback).__name__)
        if of_kind:
            vars(callback).update(of_kind.pop(0))


def _state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    if isinstance(callback, STATELESS):
        return {}
    return {
        name: value for name, value in vars(callback).items() if name not in NOT_STATE and is_plain(value)
    }
