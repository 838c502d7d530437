"""Whole words and a vocabulary that is learned from the training texts, for backbones without pretraining."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tlkit.errors import DataError
from tlkit.preprocessing.text_words import split_words
from tlkit.preprocessing.tokenizers.folding import fold
from tlkit.preprocessing.tokenizers.tokenizer import find_special_ids, one_file, read_lines, save_facts
from tlkit.results.writing import write_text
from tlkit.zoo.entry import Tokenizer as TokenizerFacts

_CHUNK = 1024  # texts that are split at once,
_CHARACTERS = 2**20  # fewer where they are long


class WordsTokenizer:
    """The words that `text_words.split_words` finds, each one token; what was not learned is unknown."""

    word_prefix = ""

    def __init__(
        self, facts: TokenizerFacts, vocabulary: Sequence[str], where: str = "The vocabulary"
    ) -> None:
        self.facts = facts
        self.vocabulary = tuple(vocabulary)
        self.vocabulary_size = len(vocabulary)
        special = find_special_ids(facts, {token: row for row, token in enumerate(vocabulary)}, where)
        self.start_id, self.end_id, self.pad_id = special.start, special.end, special.pad
        self.unknown_id, self.separator_ids = special.unknown, special.separator
        if len(set(vocabulary)) < len(vocabulary):
            raise DataError(f"{where} lists {Counter(vocabulary).most_common(1)[0][0]!r} twice.")
        names = {facts.start, facts.end, facts.pad, facts.unknown, *facts.separator}
        known = [(token, row) for row, token in enumerate(vocabulary) if token not in names]
        with tf.init_scope():
            rows = tf.lookup.KeyValueTensorInitializer(
                tf.constant([token for token, _ in known], tf.string),
                tf.constant([row for _, row in known], tf.int32),
            )
            self._table = tf.lookup.StaticHashTable(rows, self.unknown_id)
        self.trackables: list[Any] = [self._table]

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        words = _split(self.facts, texts)
        return words.with_values(self._table.lookup(words.values))

    def save(self, folder: Path) -> None:
        write_text(one_file(self.facts, folder, ".txt"), "\n".join(self.vocabulary) + "\n")
        save_facts(folder, self.facts)


def make_words(facts: TokenizerFacts, folder: Path) -> WordsTokenizer:
    """From a folder with the vocabulary file that `facts.files` names, one word per line."""
    path = one_file(facts, folder, ".txt")
    return WordsTokenizer(facts, read_lines(path), str(path))


def learn_tokenizer(facts: TokenizerFacts, texts: Iterable[str], vocabulary_size: int) -> WordsTokenizer:
    """The most frequent words of the training texts, as samples (normalised), at most `vocabulary_size` rows
    with the special tokens, which come first. Words that are equally frequent are in alphabetical order.

    Raises DataError where there is no word in the texts.
    """
    counts: Counter[bytes] = Counter()
    split = tf.function(lambda some: _split(facts, some).values, [tf.TensorSpec([None], tf.string)])
    for some in _some_at_a_time(texts):
        counts.update(split(tf.constant(some, tf.string)).numpy().tolist())
    special = list(dict.fromkeys((facts.pad, facts.unknown, facts.start, facts.end, *facts.separator)))
    for token in special:
        counts.pop(token.encode(), None)
    if not counts:
        raise DataError("There is no word in the training texts to learn a vocabulary from.")
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[
        : max(vocabulary_size - len(special), 1)
    ]
    if not facts.files:
        facts = facts.model_copy(update={"files": ("vocab.txt",)})
    return WordsTokenizer(facts, special + [word.decode("utf-8") for word in frequent])


def _some_at_a_time(texts: Iterable[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for text in texts:
        some.append(text)
        size += len(text)
        if len(some) == _CHUNK or size > _CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some


def _split(facts: TokenizerFacts, texts: tf.Tensor) -> tf.RaggedTensor:
    return split_words(fold(texts, lowercase=facts.lowercase, strip_accents=facts.strip_accents))[0]
