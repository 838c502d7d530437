"""Moving pictures about: each example by its own matrix, all of a batch in one op.

A matrix (3 × 3, float64) takes a pixel of the result, as (x, y, 1), to the place that it comes from, as in
`keras.ops.image.affine_transform`; x runs to the right, y downwards, both from the middle of the first pixel.
"""

from __future__ import annotations

import math

import tensorflow as tf


def warp(samples: tf.Tensor, matrices: tf.Tensor, fill_mode: str, fill_value: float) -> tf.Tensor:
    """Pictures (N, H, W, 3), moved by matrices (N, 3, 3), bilinear: float32 (N, H, W, 3).

    `fill_mode`: `reflect`, `constant` (with `fill_value`, a grey level), `wrap` or `nearest`.
    """
    values = tf.cast(samples, tf.float32)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=values,
        transforms=tf.cast(tf.reshape(matrices, (-1, 9))[:, :8], tf.float32),
        output_shape=tf.shape(values)[1:3],
        fill_value=tf.constant(fill_value, tf.float32),
        interpolation="BILINEAR",
        fill_mode=fill_mode.upper(),
    )


def rotation(turns: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """About the centre, by shares of a full turn (N,); positive is counter-clockwise."""
    cosine, sine = tf.cos(turns * 2 * math.pi), tf.sin(turns * 2 * math.pi)
    zero = tf.zeros_like(turns)
    return _about_centre(_rows((cosine, -sine, zero), (sine, cosine, zero)), height, width)


def zoom(vertical: tf.Tensor, horizontal: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """About the centre, by factors (N,); above 1 shows more around the picture, below 1 less of it."""
    zero = tf.zeros_like(vertical)
    return _about_centre(_rows((horizontal, zero, zero), (zero, vertical, zero)), height, width)


def translation(down: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """By pixels (N,)."""
    zero, one = tf.zeros_like(down), tf.ones_like(down)
    return _rows((one, zero, -right), (zero, one, -down))


def _about_centre(matrices: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    x = tf.fill(tf.shape(matrices)[:1], (tf.cast(width, tf.float64) - 1) / 2)
    y = tf.fill(tf.shape(matrices)[:1], (tf.cast(height, tf.float64) - 1) / 2)
    return translation(-y, -x) @ matrices @ translation(y, x)


def _rows(first: tuple[tf.Tensor, ...], second: tuple[tf.Tensor, ...]) -> tf.Tensor:
    zero, one = tf.zeros_like(first[0]), tf.ones_like(first[0])
    return tf.stack([tf.stack(row, axis=-1) for row in (first, second, (zero, zero, one))], axis=1)
