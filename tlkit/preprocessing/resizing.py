"""A picture of any size to the square that a backbone takes, inside the graph."""

from __future__ import annotations

import tensorflow as tf

_WHITE = 255


def resize_to_square(picture: tf.Tensor, size: int, resize: str) -> tf.Tensor:
    """A uint8 picture (H, W, 3) as uint8 (size, size, 3); bilinear with antialiasing, rounded.

    `stretch` changes the proportions; `crop` keeps the middle square; `pad` keeps everything and puts white
    (as under transparency) along the short sides. A picture that already has the size comes back as it is.
    """
    modes = {"stretch": _stretch, "crop": _crop, "pad": _pad}
    is_done = tf.reduce_all(tf.shape(picture)[:2] == size)
    resized = tf.cond(is_done, lambda: picture, lambda: modes[resize](picture, size))
    return tf.ensure_shape(resized, (size, size, 3))


def _stretch(picture: tf.Tensor, size: int) -> tf.Tensor:
    return _scale(picture, tf.constant([size, size]))


def _crop(picture: tf.Tensor, size: int) -> tf.Tensor:
    # Cropping first and scaling after gives the same as the other way round, and does not blow up a picture
    # a thousand times as long as it is wide.
    sides = tf.shape(picture)[:2]
    short = tf.reduce_min(sides)
    top, left = tf.unstack((sides - short) // 2)
    return _stretch(picture[top : top + short, left : left + short], size)


def _pad(picture: tf.Tensor, size: int) -> tf.Tensor:
    sides = tf.shape(picture)[:2]
    factor = size / tf.reduce_max(sides)
    inner = tf.cast(tf.round(tf.cast(sides, tf.float64) * factor), tf.int32)
    inner = tf.clip_by_value(inner, 1, size)
    before = (size - inner) // 2
    margins = tf.stack([before, size - inner - before], axis=1)
    return tf.pad(
        _scale(picture, inner),
        tf.concat([margins, [[0, 0]]], axis=0),
        constant_values=tf.cast(_WHITE, tf.uint8),
    )


def _scale(picture: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    scaled = tf.image.resize(picture, sides, method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(scaled), 0.0, 255.0), tf.uint8)
