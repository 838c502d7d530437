"""The tensors of a boundary as columns of a table, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from tlkit.features import Column, ColumnSpec
from tlkit.preprocessing.text_packing import padded_length
from tlkit.training.cache.boundary import FEATURES, Parts

TOKENS, WORDS, OTHER = "tokens", "words", "other"
_STORED = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}


def column_specs(parts: Parts, sequence_length: int) -> tuple[ColumnSpec, ...]:
    """The columns that a boundary needs, in float32.

    A tensor whose size follows from neither the tokens nor the words of a text has the axis `OTHER`: it
    cannot be stored. `sequence_length`: the most tokens of a text; 0 of pictures.
    """
    tensors = parts.lower.output
    dtypes = {name: _dtype(name, tensor) for name, tensor in tensors.items()}
    if all(None not in tensor.shape[1:] for tensor in tensors.values()):
        return tuple(ColumnSpec(name, dtypes[name], tensor.shape[1:]) for name, tensor in tensors.items())
    # What an axis counts is seen at two texts: a short one, and one that is as long as any.
    counts = {TOKENS: (7, sequence_length), WORDS: (5, 2 * sequence_length + 3)}
    short, long = (_shapes(parts.lower, *both) for both in zip(*counts.values(), strict=True))
    return tuple(_column_spec(name, dtypes[name], short[name], long[name], counts) for name in tensors)


def in_storage(specs: Sequence[ColumnSpec], storage: str) -> tuple[ColumnSpec, ...]:
    """The same columns, with features as `storage` (float32, float16 or bfloat16) has them."""
    return tuple(
        replace(spec, dtype=_STORED[storage]) if _is_feature(spec.name, spec.dtype) else spec
        for spec in specs
    )


def to_storage(tensor: tf.Tensor, storage: str) -> tf.Tensor:
    """What is stored of a tensor. numpy has no bfloat16: its bits are kept as uint16."""
    if not tensor.dtype.is_floating:
        return tensor
    tensor = tf.cast(tensor, storage)
    return tf.bitcast(tensor, tf.uint16) if storage == "bfloat16" else tensor


def from_storage(values: tf.Tensor, dtype: Any) -> tf.Tensor:
    """A tensor of the boundary's own `dtype` from what is stored."""
    wanted = tf.as_dtype(keras.backend.standardize_dtype(dtype))
    if wanted.is_floating and values.dtype == tf.uint16:
        values = tf.bitcast(values, tf.bfloat16)
    return tf.cast(values, wanted)


def take_rows(column: Column, values: tf.Tensor, rows: tf.Tensor, buckets: Sequence[int] = ()) -> tf.Tensor:
    """The values of some rows; those with an axis are padded to the longest of them, tokens to its bucket."""
    if column.starts is None or column.lengths is None:
        return tf.gather(values, rows)
    starts, lengths = (
        tf.gather(tf.constant(column.starts), rows),
        tf.gather(tf.constant(column.lengths), rows),
    )
    longest = tf.reduce_max(lengths)
    places = tf.range(padded_length(longest, buckets) if column.spec.axis == TOKENS else longest)
    is_there = places[None] < lengths[:, None]
    at = starts[:, None] + tf.cast(tf.where(is_there, places[None], 0), tf.int64)
    return pad_beyond(column.spec, tf.gather(values, at), lengths)


def pad_beyond(spec: ColumnSpec, values: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Values (rows, n, *shape) with padding in place of what is beyond the `lengths` (rows,)."""
    is_there = tf.sequence_mask(lengths, tf.shape(values)[1])
    is_there = tf.reshape(is_there, tf.concat([tf.shape(is_there), [1] * len(spec.shape)], 0))
    return tf.where(is_there, values, tf.constant(-1 if spec.name == "word_starts" else 0, values.dtype))


def _shapes(lower: keras.Model, tokens: int, words: int) -> dict[str, tuple[Any, ...]]:
    """The boundary's shapes, without the first axis, of a text of so many tokens and words."""

    def sized(tensor: keras.KerasTensor) -> keras.KerasTensor:
        sides = list(tensor.shape[1:])
        if sides and sides[0] is None:
            sides[0] = words if tensor.name == "word_starts" else tokens
        return keras.KerasTensor((1, *sides), tensor.dtype, name=tensor.name)

    given = keras.tree.map_structure(sized, lower._inputs_struct)
    given = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    return {name: tuple(tensor.shape[1:]) for name, tensor in lower.compute_output_spec(given).items()}


def _column_spec(
    name: str,
    dtype: str,
    short: tuple[Any, ...],
    long: tuple[Any, ...],
    counts: Mapping[str, tuple[int, int]],
) -> ColumnSpec:
    if short == long and None not in long:  # Keras did not know
        return ColumnSpec(name, dtype, long)
    for axis, sizes in counts.items():
        if (short[0], long[0]) == sizes and short[1:] == long[1:] and None not in long:
            return ColumnSpec(name, dtype, long[1:], axis)
    return ColumnSpec(name, dtype, (), OTHER)


def _dtype(name: str, tensor: keras.KerasTensor) -> str:
    dtype: str = keras.backend.standardize_dtype(tensor.dtype)
    return "float32" if _is_feature(name, dtype) else dtype


def _is_feature(name: str, dtype: str) -> bool:
    return name.startswith(FEATURES) and "float" in dtype
