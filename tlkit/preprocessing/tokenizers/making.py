"""Tokenizers by their kind: from the files of a source, or from those that a run saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tlkit.errors import DataError
from tlkit.preprocessing.tokenizers.bytepair import make_bytepair
from tlkit.preprocessing.tokenizers.sentencepiece import make_sentencepiece
from tlkit.preprocessing.tokenizers.strings import make_strings
from tlkit.preprocessing.tokenizers.tokenizer import FACTS_FILE, Tokenizer
from tlkit.preprocessing.tokenizers.wordpiece import make_wordpiece
from tlkit.preprocessing.tokenizers.words import make_words
from tlkit.zoo.entry import Tokenizer as TokenizerFacts

TOKENIZERS: dict[str, Callable[[TokenizerFacts, Path], Tokenizer]] = {
    "wordpiece": make_wordpiece,
    "bytepair": make_bytepair,
    "sentencepiece": make_sentencepiece,
    "strings": make_strings,
    "words": make_words,
}


def make_tokenizer(facts: TokenizerFacts, folder: Path) -> Tokenizer:
    """The tokenizer of a zoo entry, `entry.input.tokenizer`, from the files in its source's folder.

    Raises DataError where a file is missing or is not such a vocabulary.
    """
    return TOKENIZERS[facts.kind](facts, Path(folder))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into `folder`. Raises DataError where it is not whole."""
    path = Path(folder) / FACTS_FILE
    try:
        facts = TokenizerFacts.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read the tokenizer {path}: {' '.join(str(error).split())}") from error
    return make_tokenizer(facts, Path(folder))
