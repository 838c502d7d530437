"""The first frame of a GIF, with what is transparent in it made white, inside the graph."""

from __future__ import annotations

import tensorflow as tf

from tlkit.preprocessing.file_bytes import bytes_at, length_of, little_endian, one_byte, replace_at, slice_at

_EXTENSION, _GRAPHIC_CONTROL, _IMAGE, _TRAILER = 0x21, 0xF9, 0x2C, b";"
_WHITE = b"\xff\xff\xff"


def decode_first_frame(raw: tf.Tensor) -> tf.Tensor:
    """The first frame as uint8 RGB (H, W, 3) of the whole canvas; where nothing was painted it is white.

    TensorFlow paints what is transparent black, loses the canvas around a smaller frame, and reads all of an
    animation. So the bytes are rewritten first: transparency is switched off and its palette entry made
    white, the frame is moved to the corner, and the file is cut after it.
    """
    flags = bytes_at(raw, 10, 1)[0]
    after_header = 13 + _palette_bytes(flags)
    image, control = _find_first_image(raw, after_header)
    descriptor = bytes_at(raw, image, 10)
    has_own_palette = descriptor[9] >= 0x80
    palette = tf.where(has_own_palette, image + 10, 13)
    data = image + 10 + _palette_bytes(descriptor[9]) + 1
    end = _skip_blocks(raw, data)
    complete = tf.debugging.Assert(
        (descriptor[0] == _IMAGE) & (end <= length_of(raw)), ["is a GIF whose first frame is cut off"]
    )
    with tf.control_dependencies([complete]):
        frame = tf.cond(control > 0, lambda: _without_transparency(raw, control, palette), lambda: raw)
        frame = replace_at(frame, image + 1, bytes(4))
        frame = tf.strings.join([slice_at(frame, 0, end), _TRAILER])
    picture = tf.io.decode_image(frame, channels=3, expand_animations=False)
    return _onto_canvas(raw, tf.ensure_shape(picture, (None, None, 3)), descriptor)


def _find_first_image(raw: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the first image descriptor is, and where the graphic control flags before it are (0: none)."""

    def at_extension(position: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return bytes_at(raw, position, 1)[0] == _EXTENSION

    def to_next(position: tf.Tensor, control: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_control = bytes_at(raw, position + 1, 1)[0] == _GRAPHIC_CONTROL
        return _skip_blocks(raw, position + 2), tf.where(is_control, position + 3, control)

    image, control = tf.while_loop(at_extension, to_next, (start, tf.constant(0, tf.int64)))
    return image, control


def _skip_blocks(raw: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The position after a row of data blocks; beyond the end of `raw` where the row has no end."""

    def size_at(position: tf.Tensor) -> tf.Tensor:
        return bytes_at(raw, position, 1)[0]

    (position,) = tf.while_loop(
        lambda position: size_at(position) > 0, lambda position: (position + 1 + size_at(position),), (start,)
    )
    return position + 1


def _without_transparency(raw: tf.Tensor, control: tf.Tensor, palette: tf.Tensor) -> tf.Tensor:
    fields = bytes_at(raw, control, 4)  # flags, delay (2 bytes), the transparent palette index
    flags, index = fields[0], fields[3]

    def switched_off() -> tf.Tensor:
        patched = replace_at(raw, control, one_byte(flags - 1))
        return replace_at(patched, palette + 3 * index, _WHITE)

    return tf.cond(flags % 2 == 1, switched_off, lambda: raw)


def _palette_bytes(flags: tf.Tensor) -> tf.Tensor:
    size = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return tf.where(flags >= 0x80, size, 0)


def _onto_canvas(raw: tf.Tensor, frame: tf.Tensor, descriptor: tf.Tensor) -> tf.Tensor:
    """The frame in its place on the canvas; around it there is nothing, so white."""
    screen = bytes_at(raw, 6, 4)
    before = tf.stack([little_endian(descriptor[3:5]), little_endian(descriptor[1:3])])  # top, left
    canvas = tf.stack([little_endian(screen[2:]), little_endian(screen[:2])])
    size = tf.shape(frame, tf.int64)[:2]
    after = tf.maximum(canvas - before - size, 0)
    margins = tf.concat([tf.stack([before, after], axis=1), tf.zeros((1, 2), tf.int64)], axis=0)
    return tf.cond(
        tf.reduce_any(margins > 0),
        lambda: tf.pad(frame, margins, constant_values=tf.constant(255, tf.uint8)),
        lambda: frame,
    )
