"""What is wrong with an image file, in one line, for the data check and for messages to people."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from tlkit.preprocessing.decoding import decode_picture
from tlkit.preprocessing.kinds import ACCEPTED, KINDS, REFUSED, kind_index


def sniff(raw: bytes) -> str:
    """The kind of a file, a name of `KINDS`: `JPEG`, `palette BMP`, `TIFF`, `empty file`, `not an image` …"""
    return KINDS[int(_traced_kind()(raw))]


def why_refused(raw: bytes) -> str | None:
    """Why training and serving would refuse these bytes; None where they are a picture.

    The line reads on from a file's name: "is a palette BMP, … convert it to PNG". It comes from decoding the
    bytes with the very graph that training and export use.
    """
    kind = sniff(raw)
    if kind == "not an image":
        return f"{REFUSED[kind]} (begins with {raw[:12]!r})"
    if kind not in ACCEPTED:
        return REFUSED[kind]
    try:
        _traced_decode()(raw)
    except tf.errors.InvalidArgumentError as error:
        if _is_cut_off(kind, raw):
            return f"is a {kind} that is cut off ({len(raw):,} bytes): copy it again"
        return f"is a broken {kind}: {_boil_down(error)}"
    except tf.errors.ResourceExhaustedError:
        return f"is a {kind} that is too large to decode in this machine's memory"
    return None


def _is_cut_off(kind: str, raw: bytes) -> bool:
    """Whether the mark that ends a whole file is missing. Only asked of files that did not decode."""
    if kind == "JPEG":
        return b"\xff\xd9" not in raw[-64:]
    if kind == "PNG":
        return b"IEND" not in raw[-64:]
    if kind == "WebP":
        return int.from_bytes(raw[4:8], "little") + 8 > len(raw)
    if kind == "GIF":
        return not raw.rstrip(b"\0").endswith(b";")
    return int.from_bytes(raw[2:6], "little") > len(raw)


def _boil_down(error: tf.errors.InvalidArgumentError) -> str:
    """TensorFlow's message without the names of graph nodes around it."""
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    told = [
        line
        for line in lines
        if not line.startswith(("Graph execution error", "Detected at node", "[[", "("))
    ]
    text = (told or lines)[-1].removeprefix("assertion failed: ").strip("[]")
    text = text.split("}} ")[-1].split(" [Op:")[0]
    return text[:160].rstrip(". ")


@functools.cache
def _traced_kind() -> Callable[[bytes], tf.Tensor]:
    return _trace(kind_index)


@functools.cache
def _traced_decode() -> Callable[[bytes], tf.Tensor]:
    return _trace(decode_picture)


def _trace(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[bytes], tf.Tensor]:
    signature = [tf.TensorSpec((), tf.string)]
    traced: Callable[[bytes], tf.Tensor] = tf.function(function, input_signature=signature, autograph=False)
    return traced
