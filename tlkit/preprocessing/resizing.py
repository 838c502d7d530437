"""A picture of any size to the square that a backbone takes, inside the graph."""

from __future__ import annotations

import tensorflow as tf

from tlkit.zoo.entry import Resizing


def resize_to_square(picture: tf.Tensor, size: int, resizing: Resizing) -> tf.Tensor:
    """A uint8 picture (H, W, 3) as uint8 (size, size, 3), rounded.

    A picture that already has the size comes back as it is.
    """
    fits = {"stretch": _stretch, "crop": _crop, "pad": _pad}
    is_done = tf.reduce_all(tf.shape(picture)[:2] == size)
    resized = tf.cond(is_done, lambda: picture, lambda: fits[resizing.fit](picture, size, resizing))
    return tf.ensure_shape(resized, (size, size, 3))


def times_larger(sides: tf.Tensor, size: int, resizing: Resizing) -> tf.Tensor:
    """How many times a picture of `sides`, int32 (2,), is larger than what `resize_to_square` makes of it:
    float64, of the side that is reduced least."""
    decides = tf.reduce_max(sides) if resizing.fit == "pad" else tf.reduce_min(sides)
    return tf.cast(decides, tf.float64) / size


def _stretch(picture: tf.Tensor, size: int, resizing: Resizing) -> tf.Tensor:
    return _scale(picture, tf.constant([size, size]), resizing)


def _crop(picture: tf.Tensor, size: int, resizing: Resizing) -> tf.Tensor:
    # Cropping first and scaling after gives the same as the other way round, and does not blow up a picture
    # a thousand times as long as it is wide.
    sides = tf.shape(picture)[:2]
    short = tf.reduce_min(sides)
    top, left = tf.unstack((sides - short) // 2)
    return _stretch(picture[top : top + short, left : left + short], size, resizing)


def _pad(picture: tf.Tensor, size: int, resizing: Resizing) -> tf.Tensor:
    sides = tf.shape(picture)[:2]
    factor = size / tf.reduce_max(sides)
    inner = tf.cast(tf.round(tf.cast(sides, tf.float64) * factor), tf.int32)
    inner = tf.clip_by_value(inner, 1, size)
    before = (size - inner) // 2
    margins = tf.stack([before, size - inner - before], axis=1)
    return tf.pad(
        _scale(picture, inner, resizing),
        tf.concat([margins, [[0, 0]]], axis=0),
        constant_values=tf.cast(resizing.fill, tf.uint8),
    )


def _scale(picture: tf.Tensor, sides: tf.Tensor, resizing: Resizing) -> tf.Tensor:
    scaled = tf.image.resize(picture, sides, method=resizing.interpolation, antialias=resizing.antialias)
    return tf.cast(tf.clip_by_value(tf.round(tf.cast(scaled, tf.float32)), 0.0, 255.0), tf.uint8)
