"""WordPiece, the tokenizer of BERT, DistilBERT and ELECTRA: exact to the original, all in the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from tlkit.preprocessing.tokenizers.bert_cleaning import split_bert_words
from tlkit.preprocessing.tokenizers.tokenizer import find_special_ids, one_file, read_lines, save_facts
from tlkit.results.writing import write_text
from tlkit.zoo.entry import Tokenizer as TokenizerFacts

_LONGEST_WORD = 100  # characters; the original gives up on longer ones
_NOT_A_WORD = "\x00"  # cleaning took it out of every text, so that it stands for what cannot be known


class WordPieceTokenizer:
    """Cleaned, folded and split as BERT does; then each word as its longest known pieces, first to last."""

    word_prefix = ""

    def __init__(self, facts: TokenizerFacts, vocabulary: list[str], where: str = "The vocabulary") -> None:
        import tensorflow_text  # here, because importing it takes seconds and pictures do not need it

        self.facts = facts
        self.vocabulary = tuple(vocabulary)
        self.vocabulary_size = len(vocabulary)
        # Of a token that is listed twice, the last line counts, as in the original.
        special = find_special_ids(facts, {token: row for row, token in enumerate(vocabulary)}, where)
        self.start_id, self.end_id, self.pad_id = special.start, special.end, special.pad
        self.unknown_id, self.separator_ids = special.unknown, special.separator
        self.trackables: list[Any] = []  # the vocabulary is a constant of the graph
        self._pieces = tensorflow_text.FastWordpieceTokenizer(
            vocab=vocabulary,
            token_out_type=tf.int32,
            unknown_token=facts.unknown,
            no_pretokenization=True,
            max_bytes_per_word=4 * _LONGEST_WORD,
        )

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        facts = self.facts
        words = split_bert_words(texts, lowercase=facts.lowercase, strip_accents=facts.strip_accents)
        too_long = tf.strings.length(words.flat_values, unit="UTF8_CHAR") > _LONGEST_WORD
        known = tf.where(too_long, _NOT_A_WORD, words.flat_values)
        return words.with_flat_values(self._pieces.tokenize(known)).merge_dims(1, 2)

    def save(self, folder: Path) -> None:
        write_text(one_file(self.facts, folder, ".txt"), "\n".join(self.vocabulary) + "\n")
        save_facts(folder, self.facts)


def make_wordpiece(facts: TokenizerFacts, folder: Path) -> WordPieceTokenizer:
    """From a folder with the vocabulary file that `facts.files` names, one piece per line."""
    path = one_file(facts, folder, ".txt")
    return WordPieceTokenizer(facts, read_lines(path), str(path))
