"""The chunks that PNG and WebP files are made of, found inside the graph."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tlkit.preprocessing.file_bytes import big_endian, bytes_at, length_of, little_endian, slice_at

_MAX_CHUNKS = 256

# From the position of a chunk: its name (4,), the size of its content, and the position of the next one.
ChunkReader = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def png_chunk(raw: tf.Tensor, name: bytes) -> tf.Tensor:
    """The content of the first chunk `name` before the picture's data, as a scalar string; empty if none."""

    def read(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        head = bytes_at(raw, position, 8)
        size = big_endian(head[:4])
        return head[4:], size, position + 12 + size  # length, name, content, checksum

    return _find(raw, read, first=8, name=name, stop=b"IDAT")


def webp_chunk(raw: tf.Tensor, name: bytes) -> tf.Tensor:
    """The content of the first chunk `name`, as a scalar string; empty if there is none."""

    def read(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        head = bytes_at(raw, position, 8)
        size = little_endian(head[4:])
        return head[:4], size, position + 8 + size + size % 2  # name, length, content, padding to even

    return _find(raw, read, first=12, name=name, stop=None)


def _find(raw: tf.Tensor, read: ChunkReader, first: int, name: bytes, stop: bytes | None) -> tf.Tensor:
    wanted, last = list(name), list(stop or name)

    def goes_on(position: tf.Tensor) -> tf.Tensor:
        found = read(position)[0]
        is_end = tf.reduce_all(found == wanted) | tf.reduce_all(found == last)
        return (position < length_of(raw)) & ~is_end

    (position,) = tf.while_loop(
        goes_on,
        lambda position: (read(position)[2],),
        (tf.constant(first, tf.int64),),
        maximum_iterations=_MAX_CHUNKS,
    )
    found, size, _ = read(position)
    return slice_at(raw, position + 8, tf.where(tf.reduce_all(found == wanted), size, 0))
