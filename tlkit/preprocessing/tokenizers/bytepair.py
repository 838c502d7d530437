"""Byte-level byte-pair encoding, the tokenizer of RoBERTa, all in the graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from tlkit.errors import DataError
from tlkit.preprocessing.text_pieces import MARK, split_pieces, without_marks
from tlkit.preprocessing.tokenizers.merging import merge_pairs
from tlkit.preprocessing.tokenizers.tokenizer import find_special_ids, one_file, read_lines, save_facts
from tlkit.results.writing import write_json, write_text
from tlkit.zoo.entry import Tokenizer as TokenizerFacts

# GPT-2's splitting looks ahead, which RE2 cannot: of several white spaces before a word, the last one is
# the word's. So a mark is put before that one; it is no character, hence in no text.
_SPACE = r"[\t-\r\x{85}\p{Z}]"
_SPACES_BEFORE_WORD = rf"({_SPACE}+)({_SPACE}[^\t-\r\x{{85}}\p{{Z}}])"
_SIGNS = rf"[^\t-\r\x{{85}}\p{{Z}}\p{{L}}\p{{N}}{MARK}]+"
_PIECE = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?{_SIGNS}|{_SPACE}+"


class BytePairTokenizer:
    """Texts split as GPT-2 does; the bytes of each piece merged pair by pair, the most frequent pairs first.

    A word by itself has the tokens of one that stands after a space.
    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    """

    word_prefix = " "

    def __init__(
        self, facts: TokenizerFacts, ids: dict[str, int], merges: list[str], where: str = "The vocabulary"
    ) -> None:
        self.facts = facts
        self._ids, self._merges = ids, merges
        self.vocabulary_size = max(ids.values()) + 1
        special = find_special_ids(facts, ids, where)
        self.start_id, self.end_id, self.pad_id = special.start, special.end, special.pad
        self.unknown_id, self.separator_ids = special.unknown, special.separator
        self._byte_ids = [ids.get(sign, self.unknown_id) for sign in byte_signs()]
        pairs: dict[int, int] = {}  # left × vocabulary size + right → place in the list of merges
        self._merged: list[int] = []
        for left, right in (merge.split(" ", 1) for merge in merges):
            if left in ids and right in ids and left + right in ids:
                pairs.setdefault(ids[left] * self.vocabulary_size + ids[right], len(self._merged))
                self._merged.append(ids[left + right])
        with tf.init_scope():
            ranks = tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(pairs), tf.int64), tf.constant(list(pairs.values()), tf.int64)
            )
            self._ranks = tf.lookup.StaticHashTable(ranks, len(self._merged))
        self.trackables: list[Any] = [self._ranks]

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        marked = tf.strings.regex_replace(without_marks(texts), _SPACES_BEFORE_WORD, rf"\1{MARK}\2")
        pieces = split_pieces(marked, _PIECE)
        # A batch has the same few words many times: each is merged once.
        distinct, places = tf.unique(pieces.values)
        parts = tf.strings.bytes_split(distinct)
        signs = tf.cast(tf.reshape(tf.io.decode_raw(parts.values, tf.uint8), [-1]), tf.int32)
        symbols = parts.with_values(tf.gather(tf.constant(self._byte_ids, tf.int32), signs))
        merged = merge_pairs(symbols, self._ranks, self._merged, self.vocabulary_size)
        return pieces.with_values(tf.gather(merged, places)).merge_dims(1, 2)

    def save(self, folder: Path) -> None:
        write_json(one_file(self.facts, folder, ".json"), self._ids)
        write_text(one_file(self.facts, folder, ".txt"), "\n".join(["#version: 0.2", *self._merges]) + "\n")
        save_facts(folder, self.facts)


def make_bytepair(facts: TokenizerFacts, folder: Path) -> BytePairTokenizer:
    """From a folder with the vocabulary (`.json`, token → id) and the merges (`.txt`) of `facts.files`."""
    path = one_file(facts, folder, ".json")
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read the vocabulary {path}: {' '.join(str(error).split())}.") from error
    if not isinstance(ids, dict) or not ids or not all(isinstance(row, int) for row in ids.values()):
        raise DataError(f"{path} is not a vocabulary: it must map tokens to numbers.")
    lines = read_lines(one_file(facts, folder, ".txt"))
    merges = [line for line in lines if not line.startswith("#version") and line.count(" ") == 1]
    return BytePairTokenizer(facts, ids, merges, str(path))


def byte_signs() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself where it can be seen, and
    the next free one from U+0100 on where it cannot."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]
