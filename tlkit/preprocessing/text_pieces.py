"""Cutting strings into the matches of a pattern, in the graph."""

from __future__ import annotations

import tensorflow as tf

MARK = "\ufdd0"  # put between pieces; it is no character, hence in no text


def split_pieces(texts: tf.Tensor, pattern: str) -> tf.RaggedTensor:
    """Strings (N,), valid UTF-8, as the matches of an RE2 pattern and what is between them, in order: ragged
    strings (N, None), none of them empty. A `MARK` in a text ends a piece and is left out.

    Several times as fast as an operation that splits by a pattern, and it does not stop at NUL.
    """
    marked = tf.strings.regex_replace(texts, f"(?:{pattern})", rf"\0{MARK}")
    pieces = tf.strings.split(marked, MARK)
    return tf.ragged.boolean_mask(pieces, pieces != "")


def without_marks(texts: tf.Tensor) -> tf.Tensor:
    """Strings of any shape; a `MARK` that somebody wrote becomes U+FFFD."""
    return tf.strings.regex_replace(texts, MARK, "\ufffd")
