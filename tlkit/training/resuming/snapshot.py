"""Variables and callbacks as plain values that a save can hold, and back, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.errors import ConfigError
from tlkit.exchange import gather_replicas, replicas_here
from tlkit.results import is_plain
from tlkit.training.display import LiveDisplay

Copies = list[list[npt.NDArray[Any]]]  # of each variable, of each replica of this process

# What they hold is a file, a clock or a screen, and is made anew.
STATELESS = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard, LiveDisplay)
# A folder can move, and Keras turns the sign of `min_delta` when a callback sees its first epoch.
NOT_STATE = ("params", "_model", "validation_data", "filepath", "min_delta")


def take_variables(
    variables: Sequence[keras.Variable], strategy: tf.distribute.Strategy
) -> list[dict[str, Any]]:
    """The values of variables in their order; those of each replica of all workers, where they differ
    (metrics, random states)."""
    return name_values(variables, read_copies(variables, strategy), strategy)


def read_copies(variables: Sequence[keras.Variable], strategy: tf.distribute.Strategy) -> Copies:
    """The values of variables that the replicas of this process have."""
    return [
        [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        for variable in variables
    ]


def name_values(
    variables: Sequence[keras.Variable], copies: Copies, strategy: tf.distribute.Strategy
) -> list[dict[str, Any]]:
    """As `take_variables`, from what `read_copies` gave."""
    every = gather_replicas(strategy, copies)
    return [
        {"path": variable.path, "values": values} for variable, values in zip(variables, every, strict=True)
    ]


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
    first, count, total = replicas_here(strategy)
    for variable, each in zip(variables, taken, strict=True):
        copies = strategy.experimental_local_results(variable.value)
        values = each["values"] if len(each["values"]) > 1 else each["values"] * total
        for copy, value in zip(copies, values[first : first + count], strict=True):
            copy.assign(value)


def read_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> list[dict[str, Any]]:
    """What each callback keeps in attributes: numbers, text, arrays, and lists and tables of those."""
    return [deepcopy(_state(each)) for each in callbacks]


def take_callbacks(
    callbacks: Sequence[keras.callbacks.Callback], made: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What is not as it was when the callbacks were `made`: what they were given then, they are given again,
    or it is to be something else from now on."""
    return [
        {
            "kind": type(callback).__name__,
            "state": {
                name: value
                for name, value in _state(callback).items()
                if name not in before or not _is_same(value, before[name])
            },
        }
        for callback, before in zip(callbacks, made, strict=True)
    ]


def put_callbacks(
    callbacks: Sequence[keras.callbacks.Callback],
    made: Sequence[Mapping[str, Any]],
    taken: Sequence[Mapping[str, Any]],
) -> None:
    """Give callbacks what they kept: the first of a kind what the first of that kind had, and so on. The rest
    is as it was when they were `made`."""
    states: dict[str, list[dict[str, Any]]] = {}
    for each in taken:
        states.setdefault(each["kind"], []).append(each["state"])
    for callback, before in zip(callbacks, made, strict=True):
        of_kind = states.get(type(callback).__name__)
        if of_kind:
            vars(callback).update(deepcopy({**before, **of_kind.pop(0)}))


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    if isinstance(callback, STATELESS):
        return {}
    return {
        name: value for name, value in vars(callback).items() if name not in NOT_STATE and is_plain(value)
    }
