"""What happens to a string before it is tokenised, all in the graph."""

from __future__ import annotations

import tensorflow as tf

from tlkit.config.text import Normalization


def normalize_texts(texts: tf.Tensor, options: Normalization) -> tf.Tensor:
    """Strings of any shape, normalised in the order of `Normalization`'s fields.

    First of all, bytes that are not UTF-8 become U+FFFD.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    if options.unicode != "none":
        texts = _unicode_form(texts, options.unicode)
    if options.lowercase:
        texts = tf.strings.lower(texts, encoding="utf-8")
    if options.whitespace:
        texts = tf.strings.strip(tf.strings.regex_replace(texts, r"[\s\p{Z}]+", " "))
    return texts


def _unicode_form(texts: tf.Tensor, form: str) -> tf.Tensor:
    import tensorflow_text  # here, because importing it takes seconds and pictures do not need it

    return tensorflow_text.normalize_utf8(texts, form.upper())
