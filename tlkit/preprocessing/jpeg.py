"""JPEG at the scale that is needed: libjpeg can decode a half or a quarter of every side for less work."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tlkit.preprocessing.orientation import jpeg_orientation

# From the sides of a picture, int32 (2,), how many times it is larger than what becomes of it, float.
Spare = Callable[[tf.Tensor], tf.Tensor]

# An eighth would save little more, but is one colour for each block of 8 × 8: twice as far from the truth.
SCALES = (1, 2, 4)
# What is decoded has at least so many times the sides that are needed, so that the resizing that follows does
# most of the smoothing. At 1, the difference to decoding all of it is twice as large.
MARGIN = 2.0


def decode_jpeg(raw: tf.Tensor, spare: Spare | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """The scalar string `raw` as RGB, uint8 (H, W, 3), not turned yet, and its orientation (1–8).

    With `spare`, at the smallest scale that leaves `MARGIN` and whole pixels at every edge (a fraction of one
    would shift the picture); without, of its own size.
    """
    if spare is None:
        return _at_scale(raw, 1), jpeg_orientation(raw)
    sides = tf.io.extract_jpeg_shape(raw)[:2]
    is_enough = tf.cast(spare(sides), tf.float64) >= [MARGIN * scale for scale in SCALES[1:]]
    is_even = tf.stack([tf.reduce_all(sides % scale == 0) for scale in SCALES[1:]])
    # What 4 divides, 2 divides, too: the scales that will do are the first ones.
    place = tf.math.count_nonzero(is_enough & is_even, dtype=tf.int32)
    picture = tf.switch_case(place, [lambda scale=scale: _at_scale(raw, scale) for scale in SCALES])
    return picture, jpeg_orientation(raw)


def _at_scale(raw: tf.Tensor, scale: int) -> tf.Tensor:
    # The accurate transform and smooth chroma are what other decoders do; TensorFlow's default is neither
    # promised nor the same on every machine, and the fast transform is not faster where there is SIMD.
    return tf.io.decode_jpeg(
        raw,
        channels=3,
        ratio=scale,
        fancy_upscaling=True,
        try_recover_truncated=False,
        dct_method="INTEGER_ACCURATE",
    )
