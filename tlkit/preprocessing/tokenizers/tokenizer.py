"""What every tokenizer offers, and the plain facts about it that are saved beside its vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from tlkit.errors import DataError
from tlkit.results.writing import write_json
from tlkit.zoo.entry import Tokenizer as TokenizerFacts

FACTS_FILE = "tokenizer_facts.json"


class Tokenizer(Protocol):
    """Strings → token ids, in the graph. Special tokens that are written in a text are ordinary text.

    `vocabulary_size` is how many rows an embedding needs; the other ids are those of the special tokens.
    `word_prefix` is put before a word that stands by itself, so that its tokens are those inside a text.
    `trackables` is what a `tf.Module` must hold so that a graph that tokenises can be saved.
    """

    @property
    def facts(self) -> TokenizerFacts: ...
    @property
    def vocabulary_size(self) -> int: ...
    @property
    def start_id(self) -> int: ...
    @property
    def end_id(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def unknown_id(self) -> int: ...
    @property
    def separator_ids(self) -> tuple[int, ...]: ...
    @property
    def word_prefix(self) -> str: ...
    @property
    def trackables(self) -> list[Any]: ...

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Strings (N,), valid UTF-8, as token ids: ragged int32 (N, None), without special tokens."""

    def save(self, folder: Path) -> None:
        """Write the vocabulary and the facts into `folder`, which `load_tokenizer` reads."""


@dataclass(frozen=True)
class SpecialIds:
    """The ids of the special tokens that a text is packed with."""

    start: int
    end: int
    pad: int
    unknown: int
    separator: tuple[int, ...]


def find_special_ids(facts: TokenizerFacts, ids: dict[str, int], where: str) -> SpecialIds:
    """The special tokens' ids in a vocabulary. Raises DataError where it lacks one of them."""
    tokens = {facts.start, facts.end, facts.pad, facts.unknown, *facts.separator}
    missing = sorted(token for token in tokens if token not in ids)
    if missing:
        raise DataError(f"{where} has no {', '.join(missing)}: it is not the vocabulary of this backbone.")
    return SpecialIds(
        ids[facts.start],
        ids[facts.end],
        ids[facts.pad],
        ids[facts.unknown],
        tuple(ids[token] for token in facts.separator),
    )


def save_facts(folder: Path, facts: TokenizerFacts) -> None:
    write_json(folder / FACTS_FILE, facts.model_dump(mode="json"))


def read_lines(path: Path) -> list[str]:
    """The lines of a vocabulary file, one token each. Raises DataError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"Cannot read the vocabulary {path}: {reason}.") from error
    # Not splitlines: U+2028 and its like may be tokens.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def one_file(facts: TokenizerFacts, folder: Path, ending: str) -> Path:
    """The file of `facts.files` with this ending. Raises DataError where the facts name none."""
    names: Sequence[str] = [name for name in facts.files if name.endswith(ending)]
    if not names:
        raise DataError(
            f"A {facts.kind} tokenizer needs a {ending} file, its files are: {list(facts.files)}."
        )
    return folder / names[0]
