"""Encoded image bytes to the RGB picture that a person sees, inside the graph.

What each kind gives beyond what TensorFlow's own decoders do:
- transparency (PNG, WebP, GIF, BMP with an alpha mask) is composited on white, where TensorFlow shows the
  colour hidden under it;
- Exif orientation is applied, to JPEG, PNG (eXIf before the picture's data) and WebP;
- 16-bit PNG is rounded to 8 bits, not truncated;
- of an animation the first frame is taken;
- what is cut off, empty or of a kind that TensorFlow reads wrongly is refused.
Colour profiles and gamma are not applied.
"""

from __future__ import annotations

import tensorflow as tf

from tlkit.preprocessing.chunks import png_chunk, webp_chunk
from tlkit.preprocessing.file_bytes import (
    big_endian,
    bytes_at,
    length_of,
    little_endian,
    one_byte,
    replace_at,
    slice_at,
)
from tlkit.preprocessing.gif import decode_first_frame
from tlkit.preprocessing.jpeg import Spare, decode_jpeg
from tlkit.preprocessing.kinds import ACCEPTED, REFUSED, bmp_has_alpha, kind_index
from tlkit.preprocessing.orientation import apply_orientation, exif_orientation

_UPRIGHT = 1
_GREY, _COLOUR, _PALETTE = 0, 2, 3  # PNG colour types; bit 4 adds an alpha channel
_ALPHA_BIT = 4


def decode_picture(raw: tf.Tensor, spare: Spare | None = None) -> tf.Tensor:
    """The scalar string `raw` (a whole file) as a uint8 RGB picture (H, W, 3) of its own size.

    `spare` says how much larger than needed a picture is: a JPEG then comes smaller, see `decode_jpeg`.

    Errors: `tf.errors.InvalidArgumentError`, whose message says what the bytes are.
    """
    decoders = {
        "JPEG": lambda raw: decode_jpeg(raw, spare),
        "PNG": _decode_png,
        "WebP": _decode_webp,
        "GIF": _decode_gif,
        "BMP": _decode_bmp,
    }
    kind = kind_index(raw)
    branches = [lambda kind=kind: decoders[kind](raw) for kind in ACCEPTED]
    refusal = len(branches)
    picture, orientation = tf.switch_case(
        tf.minimum(kind, refusal), [*branches, lambda: _refuse(kind - refusal)]
    )
    picture = apply_orientation(tf.ensure_shape(picture, (None, None, 3)), orientation)
    return tf.ensure_shape(picture, (None, None, 3))


def _decode_png(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    header = bytes_at(raw, 24, 2)
    bits, colour_type = header[0], header[1]
    key = png_chunk(raw, b"tRNS")
    has_key = length_of(key) > 0
    is_transparent = (colour_type >= _ALPHA_BIT) | (has_key & (colour_type == _PALETTE))
    picture = tf.cond(
        is_transparent,
        lambda: _on_white(_png_bytes(raw, bits, channels=4)),
        lambda: tf.cond(
            has_key,
            lambda: _keyed_on_white(raw, bits, colour_type, key),
            lambda: _png_bytes(raw, bits, channels=3),
        ),
    )
    return picture, exif_orientation(png_chunk(raw, b"eXIf"))


def _png_bytes(raw: tf.Tensor, bits: tf.Tensor, channels: int) -> tf.Tensor:
    def from_16_bits() -> tf.Tensor:
        wide = tf.io.decode_png(raw, channels, tf.uint16)
        return tf.cast(tf.round(tf.cast(wide, tf.float32) / 257.0), tf.uint8)

    return tf.cond(bits == 16, from_16_bits, lambda: tf.io.decode_png(raw, channels))


def _keyed_on_white(raw: tf.Tensor, bits: tf.Tensor, colour_type: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """A PNG in which one exact colour is declared transparent, in the file's own bit depth."""
    picture = tf.cast(tf.io.decode_png(raw, 3, tf.uint16), tf.int64)
    samples = big_endian(tf.reshape(bytes_at(key, 0, 6), (3, 2)))
    samples = tf.where(colour_type == _GREY, samples[:1], samples)
    # Pixels below 16 bits were stretched so that the largest value became 65535: stretch the key alike.
    largest = tf.bitwise.left_shift(tf.constant(1, tf.int64), bits) - 1
    samples = samples * 65535 // tf.maximum(largest, 1)
    is_key = tf.reduce_all(picture == samples, axis=-1, keepdims=True)
    white = tf.constant(255, tf.uint8)
    return tf.where(is_key, white, _png_bytes(raw, bits, channels=3))


def _decode_webp(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    header = bytes_at(raw, 12, 9)
    flags = tf.where(tf.reduce_all(header[:4] == list(b"VP8X")), header[8], 0)
    is_animation = flags // 2 % 2 == 1
    has_exif = flags // 8 % 2 == 1
    picture = tf.io.decode_image(
        tf.cond(is_animation, lambda: _declare_alpha(raw, flags), lambda: raw), expand_animations=False
    )
    picture = tf.ensure_shape(picture, (None, None, None))
    picture = tf.cond(tf.shape(picture)[2] == 4, lambda: _on_white(picture), lambda: picture)
    return picture, tf.cond(has_exif, lambda: _webp_orientation(raw), lambda: tf.constant(_UPRIGHT))


def _declare_alpha(raw: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    """An animation that is declared to have an alpha channel, whether it uses it or not.

    TensorFlow (tried: 2.21.0) makes room for three channels when an animation declares none, but its
    decoder writes four, past the end of the memory. Declared, both are four.
    """
    with_alpha = tf.bitwise.bitwise_or(flags, tf.constant(0x10, tf.int64))
    return replace_at(raw, tf.constant(20, tf.int64), one_byte(with_alpha))


def _webp_orientation(raw: tf.Tensor) -> tf.Tensor:
    exif = webp_chunk(raw, b"EXIF")
    prefixed = tf.reduce_all(bytes_at(exif, 0, 6) == list(b"Exif\0\0"))  # some writers keep JPEG's prefix
    return exif_orientation(slice_at(exif, tf.where(prefixed, 6, 0), length_of(exif)))


def _decode_gif(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return decode_first_frame(raw), tf.constant(_UPRIGHT)


def _decode_bmp(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    picture = tf.io.decode_bmp(slice_at(raw, 0, _bmp_size(raw)))
    picture = tf.cond(bmp_has_alpha(raw), lambda: _on_white(picture), lambda: picture[:, :, :3])
    return picture, tf.constant(_UPRIGHT)


def _bmp_size(raw: tf.Tensor) -> tf.Tensor:
    """Where the pixels of a BMP end. TensorFlow refuses a file with as much as a byte after them."""
    header = bytes_at(raw, 0, 30)
    width, height = little_endian(header[18:22]), little_endian(header[22:26])
    height = tf.where(height >= 2**31, 2**32 - height, height)  # negative: stored from the top down
    bits = little_endian(header[28:30])
    return little_endian(header[10:14]) + (width * bits + 31) // 32 * 4 * height


def _on_white(picture: tf.Tensor) -> tf.Tensor:
    """An RGBA picture (H, W, 4), its alpha not premultiplied, composited on white: uint8 (H, W, 3)."""
    values = tf.cast(picture, tf.float32)
    colour, alpha = values[:, :, :3], values[:, :, 3:4]
    # Whole numbers below 2^16 over 255: float32 is exact enough, and no result lies half-way.
    blended = tf.round((colour * alpha + 255.0 * (255.0 - alpha)) / 255.0)
    return tf.cast(blended, tf.uint8)


def _refuse(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    reason = tf.gather(list(REFUSED.values()), tf.maximum(index, 0))
    refusal = tf.debugging.Assert(tf.constant(False), [reason])
    with tf.control_dependencies([refusal] if refusal is not None else []):
        return tf.zeros((0, 0, 3), tf.uint8), tf.constant(_UPRIGHT)
