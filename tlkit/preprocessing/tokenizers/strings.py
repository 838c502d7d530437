"""No tokenizer: for a backbone that takes strings and cuts them into pieces itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from tlkit.preprocessing.tokenizers.tokenizer import save_facts
from tlkit.zoo.entry import Tokenizer as TokenizerFacts


class Strings:
    """Words between white space, for counting how long a text is; they have no ids."""

    vocabulary_size = 1
    start_id = end_id = pad_id = unknown_id = 0
    separator_ids: tuple[int, ...] = ()
    word_prefix = ""

    def __init__(self, facts: TokenizerFacts) -> None:
        self.facts = facts
        self.trackables: list[Any] = []

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        words = tf.strings.split(texts)
        return words.with_flat_values(tf.zeros_like(words.flat_values, tf.int32))

    def save(self, folder: Path) -> None:
        save_facts(folder, self.facts)


def make_strings(facts: TokenizerFacts, folder: Path) -> Strings:
    return Strings(facts)
