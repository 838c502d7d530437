"""Random numbers that are a pure function of an example's seeds: the same in any batch, order and process.

A counter run through a hash (the finalizer of splitmix64; Steele, Lea and Flood, OOPSLA 2014), so that a
whole batch is drawn at once: TensorFlow's stateless ops take one seed a call.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_GOLDEN = 0x9E3779B97F4A7C15


def fold_in(seeds: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """Seeds (N, 2), integers, and a number → other seeds, int64 (N, 2), for another use of the example."""
    mixed = _join(tf.cast(seeds, tf.int64), tf.cast(number, tf.int64))
    return tf.bitcast(tf.stack([mixed, _mix(mixed)], axis=1), tf.int64)


def uniform(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """`count` independent numbers in [0, 1) for each example: seeds (N, 2) → float64 (N, count).

    In float64, so that a later sine or sum, whose last bit may depend on the place in the batch, does not
    change the float32 that it is rounded to.
    """
    base = _join(tf.cast(seeds, tf.int64), tf.constant(0, tf.int64))
    # numpy first: in a graph, tf.constant takes a list of numbers around 2^63 through float64.
    counters = np.array([(place + 1) * _GOLDEN % 2**64 for place in range(count)], np.uint64)
    bits = tf.bitwise.right_shift(_mix(base[:, None] + counters), tf.constant(11, tf.uint64))
    return tf.cast(bits, tf.float64) * 2.0**-53


def uniform_between(seeds: tf.Tensor, bounds: list[tuple[float, float]]) -> list[tf.Tensor]:
    """For each pair of bounds one number per example: a list of float64 (N,)."""
    draws = uniform(seeds, len(bounds))
    return [low + (high - low) * draws[:, place] for place, (low, high) in enumerate(bounds)]


def _join(seeds: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    first, second = tf.unstack(tf.bitcast(seeds, tf.uint64), axis=1)
    golden = tf.constant(_GOLDEN, tf.uint64)
    mixed = _mix(first + golden)
    mixed = _mix(tf.bitwise.bitwise_xor(mixed, second) + golden)
    return _mix(tf.bitwise.bitwise_xor(mixed, tf.bitcast(number, tf.uint64)) + golden)


def _mix(values: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        shifted = tf.bitwise.right_shift(values, tf.constant(shift, tf.uint64))
        values = tf.bitwise.bitwise_xor(values, shifted) * tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, tf.constant(31, tf.uint64)))
