"""Differences between characters that a tokenizer may be told to ignore, in the graph."""

from __future__ import annotations

import tensorflow as tf


def fold(texts: tf.Tensor, *, lowercase: bool, strip_accents: bool) -> tf.Tensor:
    """Strings of any shape, valid UTF-8, without accents and in small letters, as asked."""
    if strip_accents:
        texts = tf.strings.regex_replace(unicode_form(texts, "NFD"), r"\p{Mn}+", "")
    return tf.strings.lower(texts, encoding="utf-8") if lowercase else texts


def unicode_form(texts: tf.Tensor, form: str) -> tf.Tensor:
    """Strings of any shape, valid UTF-8, in a Unicode normal form: NFC, NFD, NFKC or NFKD."""
    import tensorflow_text  # here, because importing it takes seconds and pictures do not need it

    return tensorflow_text.normalize_utf8(texts, form)
