"""The text preparation of BERT's own tokenizer, in the graph: cleaning, folding, and splitting into words."""

from __future__ import annotations

import tensorflow as tf

from tlkit.preprocessing.tokenizers.bert_characters import IDEOGRAPHS, MARKS, PUNCTUATION, REMOVED, SPACES
from tlkit.preprocessing.tokenizers.folding import lower_each, unicode_form


def split_bert_words(texts: tf.Tensor, *, lowercase: bool, strip_accents: bool) -> tf.RaggedTensor:
    """Strings (N,), valid UTF-8, as words and punctuation marks: ragged strings (N, None).

    Control characters are dropped, white space separates, ideographs and punctuation marks stand alone;
    accents come off after canonical decomposition, then capitals become small letters one by one (a final
    sigma is a sigma like any other), as in the tokenizer that BERT was trained with.
    Source: Devlin et al. 2018, arXiv:1810.04805, and the tokenizer published with it.
    """
    texts = tf.strings.regex_replace(texts, _one_of(REMOVED), "")
    texts = tf.strings.regex_replace(texts, _one_of(SPACES), " ")
    texts = tf.strings.regex_replace(texts, _one_of(IDEOGRAPHS), r" \0 ")
    if strip_accents:
        texts = unicode_form(texts, "NFD")
        texts = tf.strings.regex_replace(texts, f"{_one_of(MARKS)}+", "")
    if lowercase:
        texts = lower_each(texts)
    texts = tf.strings.regex_replace(texts, _one_of(PUNCTUATION), r" \0 ")
    return tf.strings.split(texts)


def _one_of(ranges: str) -> str:
    """An RE2 character class of ranges like `0-8 ad`, in hexadecimal."""
    bounds = (part.split("-") for part in ranges.split())
    return "[" + "".join("-".join(rf"\x{{{bound}}}" for bound in pair) for pair in bounds) + "]"
