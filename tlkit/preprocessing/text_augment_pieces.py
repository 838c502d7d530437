"""Texts taken apart into words and what lies between them, and put together again."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tlkit.preprocessing.negations import negation_pattern

SPACE = r"[\s\p{Z}]"
# From the first to the last letter or digit between two spaces: marks around a word are not part of it.
_WORD = r"[\p{L}\p{N}@#](?:[^\s\p{Z}]*[\p{L}\p{M}\p{N}])?"
# Scripts that put no spaces between words: what lies between two spaces is not one.
_UNSPACED = r"(?s).*[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}].*"
_MARK = b"\xff"  # in no valid UTF-8
_FEWEST_WORDS = 4


@dataclass(frozen=True)
class Pieces:
    """The pieces of n texts, all in one row: gap, word, gap, word, … gap; gaps may be empty.

    Attributes:
        pieces: Strings (P,).
        rows: The text of each piece, int64 (P,).
        count: n.
        places: The pieces that are words, int64 (W,).
        words: The words themselves, strings (W,).
        word_rows: The text of each word, int64 (W,).
        numbers: Each word's number in its text, from 0, int64 (W,).
        is_free: Which words may be changed at all, bool (W,): no negations, nothing in short texts.
        lengths: Words of each text, those of scripts without spaces left out, float64 (n,).
    """

    pieces: tf.Tensor
    rows: tf.Tensor
    count: tf.Tensor
    places: tf.Tensor
    words: tf.Tensor
    word_rows: tf.Tensor
    numbers: tf.Tensor
    is_free: tf.Tensor
    lengths: tf.Tensor


def take_apart(texts: tf.Tensor) -> Pieces:
    """Strings (n,) → their pieces."""
    marked = tf.strings.regex_replace(texts, _WORD, _MARK + rb"\0" + _MARK)
    split = tf.strings.split(marked, _MARK)
    pieces, rows = split.flat_values, split.value_rowids()
    numbers = tf.range(tf.size(pieces, tf.int64)) - tf.gather(split.row_starts(), rows)
    places = tf.where(numbers % 2 == 1)[:, 0]
    words, word_rows = tf.gather(pieces, places), tf.gather(rows, places)
    is_spaced = ~tf.strings.regex_full_match(words, _UNSPACED)
    lengths = per_text(is_spaced, word_rows, split.nrows())
    is_long = tf.gather(lengths, word_rows) >= _FEWEST_WORDS
    return Pieces(
        pieces=pieces,
        rows=rows,
        count=split.nrows(),
        places=places,
        words=words,
        word_rows=word_rows,
        numbers=tf.gather(numbers, places) // 2,
        is_free=is_spaced & is_long & ~is_negation(words),
        lengths=lengths,
    )


def put_together(apart: Pieces, words: tf.Tensor, gaps_before: tf.Tensor | None = None) -> tf.Tensor:
    """The texts, strings (n,), with other words (W,), and where given other gaps (W,) before them."""
    pieces = tf.tensor_scatter_nd_update(apart.pieces, apart.places[:, None], words)
    if gaps_before is not None:
        pieces = tf.tensor_scatter_nd_update(pieces, apart.places[:, None] - 1, gaps_before)
    return tf.strings.unsorted_segment_join(pieces, apart.rows, apart.count)


def is_negation(words: tf.Tensor) -> tf.Tensor:
    """Which strings are a negation, or hold one between marks, as `good/not` does."""
    return tf.strings.regex_full_match(words, negation_pattern())


def per_text(chosen: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """How many of the words (W,) of each text are chosen: float64 (n,)."""
    return tf.math.unsorted_segment_sum(tf.cast(chosen, tf.float64), rows, count)
