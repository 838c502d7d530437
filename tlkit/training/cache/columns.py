"""The tensors of a boundary as columns of a table, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from tlkit.features import Column, ColumnSpec
from tlkit.training.cache.boundary import FEATURES, Parts

TOKENS, WORDS = "tokens", "words"
_STORED = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}
_PROBE = {TOKENS: 7, WORDS: 5}  # lengths by which it is told what an axis counts


def column_specs(parts: Parts) -> tuple[ColumnSpec, ...]:
    """The columns that a boundary needs, in float32."""
    lower = parts.lower
    given = keras.tree.map_structure(_probe, lower._inputs_struct)
    given = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    outputs = lower.compute_output_spec(given)
    return tuple(_column_spec(name, tensor, outputs[name]) for name, tensor in lower.output.items())


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


def take_rows(column: Column, values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """The values of some rows; those with an axis are padded to the longest of them."""
    if column.starts is None or column.lengths is None:
        return tf.gather(values, rows)
    starts, lengths = (
        tf.gather(tf.constant(column.starts), rows),
        tf.gather(tf.constant(column.lengths), rows),
    )
    places = tf.range(tf.reduce_max(lengths))
    is_there = places[None] < lengths[:, None]
    at = starts[:, None] + tf.cast(tf.where(is_there, places[None], 0), tf.int64)
    taken = tf.gather(values, at)
    padding = tf.constant(-1 if column.spec.name == "word_starts" else 0, values.dtype)
    return tf.where(
        tf.reshape(is_there, tf.concat([tf.shape(at), [1] * len(column.spec.shape)], 0)), taken, padding
    )


def _probe(tensor: keras.KerasTensor) -> keras.KerasTensor:
    size = _PROBE[WORDS if tensor.name == "word_starts" else TOKENS]
    shape = (
        1,
        *(size if side is None and place == 0 else side for place, side in enumerate(tensor.shape[1:])),
    )
    return keras.KerasTensor(shape, tensor.dtype, name=tensor.name)


def _column_spec(name: str, tensor: Any, probed: Any) -> ColumnSpec:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    dtype = "float32" if _is_feature(name, dtype) else dtype
    axis = None
    if len(tensor.shape) > 1 and tensor.shape[1] is None:
        axis = next(axis for axis, size in _PROBE.items() if size == probed.shape[1])
    shape = tuple(tensor.shape[2:] if axis else tensor.shape[1:])
    return ColumnSpec(name, dtype, shape, axis)


def _is_feature(name: str, dtype: str) -> bool:
    return name.startswith(FEATURES) and "float" in dtype
