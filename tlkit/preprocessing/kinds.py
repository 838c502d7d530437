"""What kind of picture file some bytes are, told from their first bytes, inside the graph.

The same function classifies for training, for the data check and in an exported model, so a file that one
of them refuses is refused by all, under the same name.
"""

from __future__ import annotations

import tensorflow as tf

from tlkit.preprocessing.file_bytes import bytes_at, length_of, little_endian

ACCEPTED = ("JPEG", "PNG", "WebP", "GIF", "BMP")

# What is refused, with the line that says why and what to do.
REFUSED = {
    "palette BMP": "is a palette BMP, which TensorFlow decodes wrongly: convert it to PNG",
    "run-length BMP": "is a run-length BMP, which TensorFlow cannot decode: convert it to PNG",
    "unusual BMP": "is an unusual BMP (only plain 24 and 32 bits are read): convert it to PNG",
    "TIFF": "is a TIFF, which TensorFlow cannot decode: convert it to PNG",
    "HEIC or AVIF": "is a HEIC or AVIF file, which TensorFlow cannot decode: convert it to PNG or JPEG",
    "JPEG XL": "is a JPEG XL, which is not accepted: convert it to PNG or JPEG",
    "JPEG 2000": "is a JPEG 2000, which TensorFlow cannot decode: convert it to PNG or JPEG",
    "empty file": "is an empty file",
    "not an image": "is not an image: JPEG, PNG, WebP, GIF and BMP are accepted",
}

KINDS = (*ACCEPTED, *REFUSED)

_ANY = -1
_HEADER_BYTES = 70  # as far as the alpha mask of a BMP


def kind_index(raw: tf.Tensor) -> tf.Tensor:
    """The place in `KINDS` of what the scalar string `raw` is, as an int32 scalar."""
    header = bytes_at(raw, 0, _HEADER_BYTES)
    signatures = _signatures()
    patterns = tf.constant([pattern for _, pattern in signatures], tf.int64)
    matches = tf.reduce_all((patterns == _ANY) | (patterns == header[: patterns.shape[1]]), axis=1)
    # The last signature matches anything, so the first match always exists.
    first = tf.argmax(tf.cast(matches, tf.int32))
    kind = tf.gather([KINDS.index(name) for name, _ in signatures], first)
    kind = tf.where(kind == KINDS.index("BMP"), _bmp_kind(header), kind)
    return tf.where(length_of(raw) == 0, KINDS.index("empty file"), kind)


def bmp_has_alpha(raw: tf.Tensor) -> tf.Tensor:
    """Whether the fourth byte of a 32-bit BMP is opacity: its header must say so with a mask.

    Without one the byte is unused, and often zero in files that nobody means to be invisible.
    """
    header = bytes_at(raw, 0, _HEADER_BYTES)
    return (_u32(header, 30) == 3) & (_u32(header, 14) >= 56) & (_u32(header, 66) == 0xFF000000)


def _signatures() -> list[tuple[str, list[int]]]:
    any4 = [_ANY] * 4
    table: list[tuple[str, list[int]]] = [
        ("JPEG", [0xFF, 0xD8, 0xFF]),
        ("PNG", [*b"\x89PNG\r\n\x1a\n"]),
        ("WebP", [*b"RIFF", *any4, *b"WEBP"]),
        ("GIF", [*b"GIF87a"]),
        ("GIF", [*b"GIF89a"]),
        ("BMP", [*b"BM"]),
        ("TIFF", [*b"II*\0"]),
        ("TIFF", [*b"MM\0*"]),
        ("TIFF", [*b"II+\0"]),
        ("TIFF", [*b"MM\0+"]),
        ("JPEG XL", [0xFF, 0x0A]),
        ("JPEG XL", [0, 0, 0, 12, *b"JXL "]),
        ("JPEG 2000", [0, 0, 0, 12, *b"jP  "]),
        ("HEIC or AVIF", [*any4, *b"ftyphei"]),
        ("HEIC or AVIF", [*any4, *b"ftyphev"]),
        ("HEIC or AVIF", [*any4, *b"ftypmif1"]),
        ("HEIC or AVIF", [*any4, *b"ftypavi"]),
        ("not an image", []),
    ]
    width = max(len(pattern) for _, pattern in table)
    return [(name, pattern + [_ANY] * (width - len(pattern))) for name, pattern in table]


def _bmp_kind(header: tf.Tensor) -> tf.Tensor:
    """Which kind of BMP, or not one: a text may well begin with the letters BM."""
    info_size = _u32(header, 14)
    old = info_size == 12  # OS/2 1.x: the fields are narrower and lie elsewhere
    bits = tf.where(old, little_endian(header[24:26]), little_endian(header[28:30]))
    compression = tf.where(old, tf.constant(0, tf.int64), _u32(header, 30))
    known = tf.reduce_any(info_size == tf.constant([12, 16, 40, 52, 56, 64, 108, 124], tf.int64))
    masks = tf.stack([_u32(header, at) for at in (54, 58, 62)])
    usual_masks = tf.reduce_all(masks == [0xFF0000, 0xFF00, 0xFF])
    plain = (compression == 0) & ((bits == 24) | (bits == 32))
    masked = (compression == 3) & (bits == 32) & usual_masks
    readable = (info_size >= 40) & (info_size != 64) & (plain | masked)
    cases = [
        (~known, "not an image"),
        ((compression == 1) | (compression == 2), "run-length BMP"),
        (bits <= 8, "palette BMP"),
        (readable, "BMP"),
    ]
    kind = tf.constant(KINDS.index("unusual BMP"))
    for condition, name in reversed(cases):
        kind = tf.where(condition, KINDS.index(name), kind)
    return kind


def _u32(header: tf.Tensor, at: int) -> tf.Tensor:
    return little_endian(header[at : at + 4])
