"""Augmentation of training texts, drawn statelessly: an example's change is a function of its seeds.

Negations are never taken out, moved, misspelt or replaced, nor moved away from the word behind them; texts of
fewer than four words stay as they are, and no text becomes empty. What lies between words stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tlkit.config.augment import Augmentation
from tlkit.config.text_augment import KeyboardTypos, RandomDeletion, RandomSwap, SynonymReplacement
from tlkit.errors import ConfigError
from tlkit.preprocessing.draws import fold_in, uniform
from tlkit.preprocessing.synonyms import find_synonyms
from tlkit.preprocessing.text_augment_pieces import (
    SPACE,
    Pieces,
    is_negation,
    per_text,
    put_together,
    take_apart,
)

# (samples, strings (N,) or (N, 2); seeds int64 (N, 2)) → samples
TextAugment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Synonyms = Mapping[str, Sequence[str]]

# The neighbours of each letter on a QWERTY keyboard.
_KEYS = {
    "a": "qwsz", "b": "vghn", "c": "xdfv", "d": "erfcxs", "e": "wsdr", "f": "rtgvcd", "g": "tyhbvf",
    "h": "yujnbg", "i": "uojk", "j": "uikmnh", "k": "iolmj", "l": "opk", "m": "njk", "n": "bhjm", "o": "ipkl",
    "p": "ol", "q": "wa", "r": "edft", "s": "awedxz", "t": "rfgy", "u": "yihj", "v": "cfgb", "w": "qase",
    "x": "zsdc", "y": "tghu", "z": "asx",
}  # fmt: skip


def make_text_augment(augmentations: Sequence[Augmentation], texts: Iterable[str] = ()) -> TextAugment:
    """The augmentations, in their order, as one function over a batch, for use in a graph.

    It takes samples, strings (N,) or (N, 2), and seeds, integers (N, 2): for each example a pair that no
    other example in no other epoch has. `texts` are the training texts, or their words: synonyms are looked
    up for what occurs in them. Raises ConfigError for words with tags, and where NLTK's WordNet is needed
    and missing.
    """
    needs_synonyms = any(isinstance(options, SynonymReplacement) for options in augmentations)
    synonyms = find_synonyms(texts) if needs_synonyms else {}
    steps = [_MAKERS[type(options)](options, synonyms) for options in augmentations]

    def augment(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        if isinstance(samples, tf.RaggedTensor):
            raise ConfigError(
                "preprocessing.augment: words with tags cannot be augmented. Use augment: none."
            )
        columns = samples.shape[1] if samples.shape.rank == 2 else 1
        flat = tf.reshape(samples, [-1])
        own = tf.reshape(tf.stack([fold_in(seeds, column) for column in range(columns)], axis=1), [-1, 2])
        for place, step in enumerate(steps):
            flat = step(flat, fold_in(own, place))
        return tf.ensure_shape(tf.reshape(flat, tf.shape(samples)), samples.shape)

    # There is no Python control flow over tensors in it: converting it would only make tracing slower.
    unconverted: TextAugment = tf.autograph.experimental.do_not_convert(augment)
    return unconverted


def _synonyms(options: SynonymReplacement, synonyms: Synonyms) -> TextAugment:
    if not synonyms:
        return lambda texts, seeds: texts
    table = _index(list(synonyms))
    others = tf.ragged.constant(list(synonyms.values()), dtype=tf.string)

    def step(texts: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        apart = take_apart(texts)
        entries = table.lookup(apart.words)
        chosen, draws = _choose(apart, (entries >= 0) & apart.is_free, options.share, seeds)
        synonym = _pick_from(others, tf.maximum(entries, 0), draws[:, 0])
        return put_together(apart, tf.where(chosen, synonym, apart.words))

    return step


def _deletion(options: RandomDeletion, synonyms: Synonyms) -> TextAugment:
    del synonyms

    def step(texts: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        apart = take_apart(texts)
        chosen, _ = _choose(apart, _movable(apart), options.share, seeds)
        # Every word of a text but its negations may have been drawn: then nothing would be left of it.
        left = per_text(~chosen, apart.word_rows, apart.count) > 0
        chosen &= tf.gather(left, apart.word_rows)
        gaps = tf.gather(apart.pieces, apart.places - 1)
        gaps = tf.where(chosen, tf.strings.regex_replace(gaps, f"{SPACE}+$", ""), gaps)
        shorter = put_together(apart, tf.where(chosen, "", apart.words), gaps)
        begins_with_space = tf.strings.regex_full_match(texts, f"(?s){SPACE}.*")
        return tf.where(begins_with_space, shorter, tf.strings.regex_replace(shorter, f"^{SPACE}+", ""))

    return step


def _swap(options: RandomSwap, synonyms: Synonyms) -> TextAugment:
    del synonyms

    def step(texts: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        apart = take_apart(texts)
        # Pairs begin at even or at odd words, so that no two of them overlap.
        parity = tf.cast(uniform(fold_in(seeds, -1), 1)[:, 0] < 0.5, tf.int64)
        may_begin = apart.numbers % 2 == tf.gather(parity, apart.word_rows)
        gaps = tf.gather(apart.pieces, apart.places + 1)
        has_next = tf.roll(apart.numbers, -1, 0) == apart.numbers + 1
        has_next &= tf.strings.regex_full_match(gaps, f"{SPACE}+")
        movable = _movable(apart)
        pairs = may_begin & has_next & movable & tf.roll(movable, -1, 0)
        is_first, _ = _choose(apart, pairs, options.share / 2, seeds)
        words = tf.where(is_first, tf.roll(apart.words, -1, 0), apart.words)
        words = tf.where(tf.roll(is_first, 1, 0), tf.roll(apart.words, 1, 0), words)
        return put_together(apart, words)

    return step


def _typos(options: KeyboardTypos, synonyms: Synonyms) -> TextAugment:
    del synonyms
    letters = _index(list(_KEYS))
    keys = tf.ragged.constant([list(neighbours) for neighbours in _KEYS.values()], dtype=tf.string)

    def step(texts: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        apart = take_apart(texts)
        is_latin = tf.strings.regex_full_match(apart.words, "[A-Za-z]{3,}")
        chosen, draws = _choose(apart, is_latin & apart.is_free, options.share, seeds)
        words = tf.where(is_latin, apart.words, "abc")  # so that there is a letter to look at everywhere
        size = tf.strings.length(words)
        place = tf.cast(_pick(draws[:, 0], size), tf.int32)
        letter = tf.strings.substr(words, place, tf.ones_like(place))
        entries = letters.lookup(tf.strings.lower(letter))
        wrong = _pick_from(keys, entries, draws[:, 1])
        wrong = tf.where(letter == tf.strings.upper(letter), tf.strings.upper(wrong), wrong)
        head = tf.strings.substr(words, tf.zeros_like(place), place)
        tail = tf.strings.substr(words, place + 1, size - place - 1)
        misspelt = tf.strings.join([head, wrong, tail])
        return put_together(apart, tf.where(chosen & ~is_negation(misspelt), misspelt, apart.words))

    return step


def _choose(
    apart: Pieces, eligible: tf.Tensor, share: float, seeds: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw words for a change: on average `share` of all words of a text, as far as enough are eligible.

    Gives which words were chosen, bool (W,), and two further draws in [0, 1) for each, float64 (W, 2).
    """
    draws = uniform(fold_in(tf.gather(seeds, apart.word_rows), apart.numbers), 3)
    available = per_text(eligible, apart.word_rows, apart.count)
    chance = share * apart.lengths / tf.maximum(available, 1.0)
    return eligible & (draws[:, 0] < tf.gather(chance, apart.word_rows)), draws[:, 1:]


def _movable(apart: Pieces) -> tf.Tensor:
    """Free words that do not stand behind a negation: away from it, they would mean the opposite."""
    behind = tf.roll(is_negation(apart.words), 1, 0) & (apart.numbers > 0)
    return apart.is_free & ~behind


def _pick(draws: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Draws in [0, 1) → whole numbers below `counts`, int64."""
    return tf.cast(draws * tf.cast(counts, tf.float64), tf.int64)


def _pick_from(options: tf.RaggedTensor, entries: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """One of the options of each entry."""
    places = tf.gather(options.row_starts(), entries) + _pick(
        draws, tf.gather(options.row_lengths(), entries)
    )
    return tf.gather(options.flat_values, places)


def _index(words: list[str]) -> tf.lookup.StaticHashTable:
    """A table from each word to its place; −1 for others."""
    pairs = tf.lookup.KeyValueTensorInitializer(words, tf.range(len(words), dtype=tf.int64))
    return tf.lookup.StaticHashTable(pairs, default_value=-1)


_MAKERS: dict[type[Augmentation], Callable[[Any, Synonyms], TextAugment]] = {
    SynonymReplacement: _synonyms,
    RandomDeletion: _deletion,
    RandomSwap: _swap,
    KeyboardTypos: _typos,
}
