"""The orientation that a camera wrote into a picture's Exif data, read and applied inside the graph."""

from __future__ import annotations

import tensorflow as tf

from tlkit.preprocessing.file_bytes import big_endian, bytes_at, little_endian, slice_at

_ORIENTATION_TAG = 0x0112
_SHORT = 3
_MAX_ENTRIES = 128  # entries of the first directory that are looked at; cameras write about a dozen
_MAX_SEGMENTS = 64  # segments of a JPEG that are looked at; Exif is meant to be the first


def jpeg_orientation(raw: tf.Tensor) -> tf.Tensor:
    """The orientation (1–8, 1 where there is none) that the JPEG `raw` carries, as an int32 scalar.

    Walks the application and comment segments at the start of the file to the first one that holds Exif.
    """

    def at_other_segment(position: tf.Tensor) -> tf.Tensor:
        head = bytes_at(raw, position, 10)
        passable = ((head[1] >= 0xE0) & (head[1] <= 0xEF)) | (head[1] == 0xFE) | (head[1] == 0xFF)
        return (head[0] == 0xFF) & passable & ~_is_exif(head)

    def to_next(position: tf.Tensor) -> tuple[tf.Tensor]:
        head = bytes_at(raw, position, 4)
        is_fill_byte = head[1] == 0xFF
        return (position + tf.where(is_fill_byte, tf.constant(1, tf.int64), 2 + big_endian(head[2:])),)

    (position,) = tf.while_loop(
        at_other_segment, to_next, (tf.constant(2, tf.int64),), maximum_iterations=_MAX_SEGMENTS
    )
    head = bytes_at(raw, position, 10)
    return tf.cond(
        _is_exif(head),
        lambda: exif_orientation(slice_at(raw, position + 10, big_endian(head[2:4]) - 8)),
        lambda: tf.constant(1),
    )


def exif_orientation(exif: tf.Tensor) -> tf.Tensor:
    """The orientation in Exif data, which begins with its byte order (II or MM); 1 where there is none."""
    header = bytes_at(exif, 0, 8)
    is_big, is_little = (tf.reduce_all(header[:2] == [ord(mark)] * 2) for mark in "MI")

    def number(values: tf.Tensor) -> tf.Tensor:
        return tf.where(is_big, big_endian(values), little_endian(values))

    directory = number(header[4:])
    count = number(bytes_at(exif, directory, 2))
    entries = tf.reshape(bytes_at(exif, directory + 2, 12 * _MAX_ENTRIES), (_MAX_ENTRIES, 12))
    is_orientation = (
        (number(entries[:, 0:2]) == _ORIENTATION_TAG)
        & (number(entries[:, 2:4]) == _SHORT)
        & (tf.range(_MAX_ENTRIES, dtype=tf.int64) < count)
        & (is_big | is_little)
    )
    value = tf.reduce_max(tf.where(is_orientation, number(entries[:, 8:10]), 0))
    return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)


def apply_orientation(picture: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The picture (H, W, 3) as it is meant to be seen; its sides are exchanged for orientations 5 to 8."""

    def turned() -> tf.Tensor:
        # Every orientation is a transposition or none, then a mirroring of either axis or none.
        result = tf.cond(orientation >= 5, lambda: tf.transpose(picture, (1, 0, 2)), lambda: picture)
        mirrors_rows = tf.reduce_any(orientation == [3, 4, 7, 8])
        mirrors_columns = tf.reduce_any(orientation == [2, 3, 6, 7])
        result = tf.cond(mirrors_rows, lambda: tf.reverse(result, [0]), lambda: result)
        return tf.cond(mirrors_columns, lambda: tf.reverse(result, [1]), lambda: result)

    return tf.cond(orientation > 1, turned, lambda: picture)


def _is_exif(head: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(head[:2] == [0xFF, 0xE1]) & tf.reduce_all(head[4:] == list(b"Exif\0\0"))
