"""Differences between characters that a tokenizer may be told to ignore, in the graph."""

from __future__ import annotations

import tensorflow as tf

_NUL = "\ufdd1"  # stands for NUL where a function stops there; it is no character, hence in no text


def fold(texts: tf.Tensor, *, lowercase: bool, strip_accents: bool) -> tf.Tensor:
    """Strings of any shape, valid UTF-8, without accents and in small letters, as asked."""
    if strip_accents:
        texts = tf.strings.regex_replace(unicode_form(texts, "NFD"), r"\p{Mn}+", "")
    return lower(texts) if lowercase else texts


def lower(texts: tf.Tensor) -> tf.Tensor:
    """Strings of any shape, valid UTF-8, in small letters."""
    # TensorFlow's own drops what comes after a NUL.
    texts = tf.strings.lower(tf.strings.regex_replace(texts, r"\x00", _NUL), encoding="utf-8")
    return tf.strings.regex_replace(texts, _NUL, "\x00")


def lower_each(texts: tf.Tensor) -> tf.Tensor:
    """As `lower`, but one character at a time: in a string as a whole, a sigma at the end of a word is
    another letter."""
    return lower(tf.strings.regex_replace(texts, "Σ", "σ"))


def unicode_form(texts: tf.Tensor, form: str) -> tf.Tensor:
    """Strings of any shape, valid UTF-8, in a Unicode normal form: NFC, NFD, NFKC or NFKD."""
    import tensorflow_text  # here, because importing it takes seconds and pictures do not need it

    return tensorflow_text.normalize_utf8(texts, form)
