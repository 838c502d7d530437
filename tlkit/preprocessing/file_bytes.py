"""Reading numbers out of a file's bytes, inside the graph.

Positions and numbers are int64 scalars. Reading past the end gives zeros, so that a parser of broken bytes
needs no bounds check of its own: whatever it makes of them, the decoder after it refuses the file.
"""

from __future__ import annotations

import tensorflow as tf


def bytes_at(raw: tf.Tensor, start: tf.Tensor | int, count: int) -> tf.Tensor:
    """The `count` bytes of the scalar string `raw` from `start` on, as int64 (count,)."""
    part = slice_at(raw, start, count)
    values = tf.io.decode_raw(part, tf.uint8, fixed_length=count)
    return tf.ensure_shape(tf.cast(values, tf.int64), (count,))


def slice_at(raw: tf.Tensor, start: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """At most `count` bytes of `raw` from `start` on, as a scalar string."""
    first = tf.clip_by_value(tf.cast(start, tf.int64), 0, length_of(raw))
    return tf.strings.substr(raw, first, tf.maximum(tf.cast(count, tf.int64), 0))


def length_of(raw: tf.Tensor) -> tf.Tensor:
    """The number of bytes of `raw`."""
    return tf.cast(tf.strings.length(raw), tf.int64)


def little_endian(values: tf.Tensor) -> tf.Tensor:
    """The unsigned number that the last axis of `values` (one byte each) spells, lowest byte first."""
    return tf.reduce_sum(values * [256**i for i in range(values.shape[-1])], axis=-1)


def big_endian(values: tf.Tensor) -> tf.Tensor:
    """The unsigned number that the last axis of `values` (one byte each) spells, highest byte first."""
    return little_endian(tf.reverse(values, axis=[-1]))


def one_byte(value: tf.Tensor) -> tf.Tensor:
    """The number `value` (0–255) as a string of one byte."""
    return tf.gather([bytes([number]) for number in range(256)], value)


def replace_at(raw: tf.Tensor, start: tf.Tensor, new: bytes | tf.Tensor) -> tf.Tensor:
    """`raw` with the bytes from `start` on overwritten by `new`."""
    after = start + length_of(tf.convert_to_tensor(new))
    return tf.strings.join([slice_at(raw, 0, start), new, slice_at(raw, after, length_of(raw))])
