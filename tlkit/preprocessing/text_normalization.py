"""What happens to a string before it is tokenised, all in the graph."""

from __future__ import annotations

import tensorflow as tf

from tlkit.config.text import Normalization
from tlkit.preprocessing.text_html import decode_entities, strip_tags
from tlkit.preprocessing.tokenizers.folding import lower, unicode_form

_LETTER = r"\p{L}\p{M}\p{N}_"
_URL = r"""(?i)(?:(?:https?|ftp)://|www\.)[^\s\p{Z}<>"]*[^\s\p{Z}<>"'.,;:!?()\[\]{}«»“”‘’…]/?"""
# A name that is not part of an e-mail address or of a path: what stands before it is put back.
_USER = rf"(^|[^{_LETTER}@/%+-])@[{_LETTER}]+"
# Whole numbers and those with inner points, commas or colons; not digits inside a word like `mp3`, `v1.2`
# or `5kg`. RE2 cannot look around, so what stands before and after is put back.
_BEFORE = rf"(^|[^{_LETTER}.]|(?:^|[^{_LETTER}.])\.)"
_AFTER = rf"($|[^{_LETTER}.,:]|[.,:]+(?:$|[^{_LETTER}.,:]))"
_NUMBER = rf"{_BEFORE}\p{{Nd}}+(?:[.,:]\p{{Nd}}+)*{_AFTER}"
# As BERT's cleaning has it. Other control characters are the tokenizer's business.
_WHITE_SPACE = r"[\t\n\r\p{Z}]+"


def normalize_texts(texts: tf.Tensor, options: Normalization) -> tf.Tensor:
    """Strings of any shape, normalised in the order of `Normalization`'s fields.

    First of all, bytes that are not UTF-8 become U+FFFD.
    """
    texts = replace_invalid(texts)
    if options.strip_html:
        texts = decode_entities(strip_tags(texts))
    if options.mask_urls:
        texts = tf.strings.regex_replace(texts, _URL, "url")
    if options.mask_users:
        texts = tf.strings.regex_replace(texts, _USER, r"\1user")
    if options.mask_numbers:
        for _ in range(2):  # two numbers share what stands between them: one each time
            texts = tf.strings.regex_replace(texts, _NUMBER, r"\1number\2")
    if options.unicode != "none":
        texts = unicode_form(texts, options.unicode.upper())
    if options.lowercase:
        texts = lower(texts)
    if options.whitespace:
        texts = tf.strings.regex_replace(texts, _WHITE_SPACE, " ")
        texts = tf.strings.regex_replace(texts, "^ | $", "")
    return texts


def replace_invalid(texts: tf.Tensor) -> tf.Tensor:
    """Strings of any shape; bytes that are not UTF-8 become U+FFFD."""
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
