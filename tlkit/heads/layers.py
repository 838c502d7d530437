"""The layers that a head puts on top of a backbone's features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tlkit.config import HeadConfig
from tlkit.heads.pooling import pool

Attach = Callable[[Mapping[str, Any]], Any]


def attach_examples(options: HeadConfig, n_outputs: int, mean: list[float], deviation: list[float]) -> Attach:
    """One row of logits or values for each example, (N, n_outputs); the values are in the target's unit."""

    def attach(features: Mapping[str, Any]) -> Any:
        x = _hidden(pool(features, options.pooling), options)
        x = _output(x, options, n_outputs)
        if np.all(np.asarray(mean) == 0.0) and np.all(np.asarray(deviation) == 1.0):
            return x
        return keras.layers.Rescaling(scale=deviation, offset=mean, name="head_unit")(x)

    return attach


def attach_words(options: HeadConfig, n_tags: int) -> Attach:
    """Logits for each word, (N, W, n_tags), from its first sub-word.

    Where `word_starts` is −1 (no word, or one that was cut off) all logits are 0: nothing is said about it.
    """

    def attach(features: Mapping[str, Any]) -> Any:
        x = _output(_hidden(first_subwords(features), options), options, n_tags)
        return answer_words(x, features)

    return attach


def answer_words(logits: Any, features: Mapping[str, Any]) -> Any:
    """The logits (N, W, tags) of words, 0 where there is none."""
    return logits * keras.ops.cast(keras.ops.expand_dims(features["word_starts"] >= 0, -1), logits.dtype)


def first_subwords(features: Mapping[str, Any]) -> Any:
    """What the backbone says of each word's first sub-word, (N, W, C); anything where there is no word."""
    starts = keras.ops.expand_dims(keras.ops.maximum(features["word_starts"], 0), -1)
    return keras.ops.take_along_axis(features["sequence"], starts, axis=1)


def attach_vectors(options: HeadConfig) -> Attach:
    """A vector of length 1 for each text, (N, d): pooled, and projected where there are hidden layers.

    The last of the hidden layers is linear and gives the width d: after a ReLU no two vectors could be
    opposites.
    """

    def attach(features: Mapping[str, Any]) -> Any:
        x = _hidden(pool(features, options.pooling), options, last="linear")
        return keras.layers.UnitNormalization(name="head_output")(x)

    return attach


def _hidden(x: Any, options: HeadConfig, last: str | None = None) -> Any:
    """`last` is the activation of the last hidden layer, where it is not that of the others."""
    for index, units in enumerate(options.hidden_units, start=1):
        is_last = index == len(options.hidden_units)
        activation = last if last and is_last else options.activation
        x = _dropout(x, options.dropout, f"head_dropout{index}")
        x = _dense(options, units, activation, f"head_hidden{index}")(x)
    return x


def _output(x: Any, options: HeadConfig, units: int) -> Any:
    return _dense(options, units, None, "head_output")(_dropout(x, options.dropout, "head_dropout"))


def _dense(options: HeadConfig, units: int, activation: str | None, name: str) -> keras.layers.Layer:
    penalty = keras.regularizers.L1L2(options.l1, options.l2) if options.l1 or options.l2 else None
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=options.initializer,
        kernel_regularizer=penalty,
        name=name,
    )


def _dropout(x: Any, rate: float, name: str) -> Any:
    return keras.layers.Dropout(rate, name=name)(x) if rate else x
