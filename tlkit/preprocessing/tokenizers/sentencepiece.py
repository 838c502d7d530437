"""SentencePiece, the tokenizer of XLM-R, DeBERTa-v3, ALBERT and F-Net, all in the graph."""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from pathlib import Path
from typing import Any

import tensorflow as tf

from tlkit.errors import DataError
from tlkit.preprocessing.tokenizers.folding import lower_each, unicode_form
from tlkit.preprocessing.tokenizers.tokenizer import find_special_ids, one_file, save_facts
from tlkit.results.writing import writing
from tlkit.zoo.entry import Tokenizer as TokenizerFacts

# fairseq's own first four ids; a piece's id is one more than SentencePiece's, which has no padding.
_FAIRSEQ = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
_FAIRSEQ_SHIFT = 1


class SentencePieceTokenizer:
    """The pieces of a SentencePiece model, which normalises, too.

    A model without a padding token is XLM-R's: its ids are shifted as fairseq does. One with both `[CLS]`
    and `<pad>` is ALBERT's or F-Net's: two single quotation marks are a double one, as in the originals;
    `strip_accents` and `lowercase` fold the text first (compatibility forms come apart, too).
    Source: Kudo and Richardson 2018, arXiv:1808.06226.
    """

    word_prefix = ""  # SentencePiece puts its own mark before the first word

    def __init__(self, facts: TokenizerFacts, model: bytes, where: str = "The model") -> None:
        import tensorflow_text  # here, because importing it takes seconds and pictures do not need it

        self.facts = facts
        self._model = model
        with tf.init_scope():
            try:
                self._pieces = tensorflow_text.SentencepieceTokenizer(model=model, out_type=tf.int32)
                _outlive_kernels(self._pieces, model)
                size = int(self._pieces.vocab_size())
                pieces = self._pieces.id_to_string(tf.range(size)).numpy()
            except tf.errors.OpError as error:
                raise DataError(f"{where} is not a SentencePiece model.") from error
        ids = {piece.decode("utf-8"): row for row, piece in enumerate(pieces)}
        self._pieces_unknown = ids.get("<unk>", ids.get(facts.unknown, 0))
        self._shifted = facts.pad == "<pad>" and facts.pad not in ids
        self._quotes = "[CLS]" in ids and "<pad>" in ids
        if self._shifted:
            ids = {piece: row + _FAIRSEQ_SHIFT for piece, row in ids.items()} | _FAIRSEQ
            size += _FAIRSEQ_SHIFT
        special = find_special_ids(facts, ids, where)
        self.vocabulary_size = size
        self.start_id, self.end_id, self.pad_id = special.start, special.end, special.pad
        self.unknown_id, self.separator_ids = special.unknown, special.separator
        self._combining = _combining_marks() if facts.strip_accents else ""
        self.trackables: list[Any] = [self._pieces]

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        if self._quotes:
            texts = tf.strings.regex_replace(texts, "``|''", '"')
        if self.facts.strip_accents:
            texts = tf.strings.regex_replace(unicode_form(texts, "NFKD"), f"{self._combining}+", "")
        if self.facts.lowercase:
            texts = lower_each(texts)
        ids = self._pieces.tokenize(texts)
        if not self._shifted:
            return ids
        known = ids.values != self._pieces_unknown
        return ids.with_values(tf.where(known, ids.values + _FAIRSEQ_SHIFT, self.unknown_id))

    def save(self, folder: Path) -> None:
        with writing(one_file(self.facts, folder, ".model")) as path:
            path.write_bytes(self._model)
        save_facts(folder, self.facts)


def make_sentencepiece(facts: TokenizerFacts, folder: Path) -> SentencePieceTokenizer:
    """From a folder with the `.model` file that `facts.files` names."""
    path = one_file(facts, folder, ".model")
    try:
        model = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read the vocabulary {path}: {error.strerror}.") from error
    return SentencePieceTokenizer(facts, model, str(path))


def _outlive_kernels(pieces: Any, model: bytes) -> None:
    """Let the loaded model live as long as the process.

    It belongs to the kernel that made it, and `tf.random.set_seed`, which Keras's calls as well, drops all
    kernels: the next call would fail with "Resource … does not exist". A resource with a name of its own
    stays. Private: there is no public way to the name. Tried on tensorflow-text 2.21.1.
    """
    from tensorflow_text.python.ops import sentencepiece_tokenizer as operations

    name = f"tlkit_{hashlib.sha256(model).hexdigest()}"

    class Named(type(pieces._model_resource)):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            make = operations.gen_sentencepiece_tokenizer.sentencepiece_op
            return make(model=self._model, shared_name=name)

    pieces._model_resource = Named(model, None)


def _combining_marks() -> str:
    """An RE2 class of the characters that combine with the one before them, which RE2 has no name for."""
    marks = [rf"\x{{{code:x}}}" for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    return f"[{''.join(marks)}]"
