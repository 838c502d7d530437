"""Token ids equal those of the original tokenizers, in eager code, in a graph, and in a loaded SavedModel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tlkit import zoo
from tlkit.errors import DataError
from tlkit.preprocessing.tokenizers import learn_tokenizer, load_tokenizer, make_tokenizer
from tlkit.zoo.entry import Tokenizer
from tlkit.zoo.fetch import fetch_weights

FIXTURES = Path(__file__).parent / "fixtures" / "tokens"
WORDPIECE = Tokenizer(kind="wordpiece", files=("wordpiece_vocab.txt",))
UNCASED = WORDPIECE.model_copy(update={"lowercase": True, "strip_accents": True})


def table(name: str) -> list[dict]:
    """Texts and the ids that the original tokenizer gives them, without special tokens."""
    lines = (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def differing(tokenizer, rows: list[dict], column: str) -> list[tuple]:
    ids = tf.function(tokenizer.tokenize)(tf.constant([row["text"] for row in rows])).to_list()
    return [
        (ascii(row["text"][:60]), row[column][:20], got[:20])
        for row, got in zip(rows, ids, strict=True)
        if row[column] != got
    ]


@pytest.mark.real
def test_minilm_ids_equal_the_original_tokenizers():
    entry = zoo.get("minilm_l6")
    rows = table("wordpiece")
    assert len(rows) >= 200
    assert differing(make_tokenizer(entry.input.tokenizer, fetch_weights(entry)), rows, "minilm") == []


@pytest.mark.parametrize(("facts", "column"), [(UNCASED, "tiny_uncased"), (WORDPIECE, "tiny_cased")])
def test_wordpiece_ids_equal_the_original_tokenizers(facts, column):
    assert differing(make_tokenizer(facts, FIXTURES), table("wordpiece"), column) == []


def test_special_tokens_in_a_text_are_ordinary_text():
    tokenizer = make_tokenizer(UNCASED, FIXTURES)
    ids = tokenizer.tokenize(tf.constant(["[CLS] a [SEP] [PAD] [MASK]"])).to_list()[0]
    special = {tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id}
    assert ids
    assert not special & set(ids)


def test_saved_tokenizer_gives_the_same_ids(tmp_path):
    tokenizer = make_tokenizer(UNCASED, FIXTURES)
    tokenizer.save(tmp_path)
    assert differing(load_tokenizer(tmp_path), table("wordpiece"), "tiny_uncased") == []
    assert load_tokenizer(tmp_path).facts == tokenizer.facts


def test_no_texts_give_no_ids():
    tokenizer = make_tokenizer(UNCASED, FIXTURES)
    assert tf.function(tokenizer.tokenize)(tf.zeros([0], tf.string)).to_list() == []
    assert tokenizer.tokenize(tf.constant(["", " "])).to_list() == [[], []]


def test_missing_or_foreign_vocabulary_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"Cannot read the vocabulary .*wordpiece_vocab.txt: No such file"):
        make_tokenizer(WORDPIECE, tmp_path)
    (tmp_path / "wordpiece_vocab.txt").write_text("<s>\n</s>\n")
    with pytest.raises(DataError, match=r"has no \[CLS\], \[PAD\], \[SEP\], \[UNK\]"):
        make_tokenizer(WORDPIECE, tmp_path)
    (tmp_path / "wordpiece_vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="it is not UTF-8"):
        make_tokenizer(WORDPIECE, tmp_path)
    with pytest.raises(DataError, match="Cannot read the tokenizer"):
        load_tokenizer(tmp_path)


def test_importing_the_preprocessing_does_not_load_tensorflow_text():
    code = "import tlkit.preprocessing.text, sys; sys.exit('tensorflow_text' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


WORDS = Tokenizer(kind="words", lowercase=True)


def test_words_are_learned_most_frequent_first_ties_alphabetical():
    tokenizer = learn_tokenizer(WORDS, ["b a b", "C c, b [PAD]", "a z"], 9)
    assert tokenizer.vocabulary == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "b", "a", "c", ",", "[")
    assert tokenizer.vocabulary_size == 9
    ids = tokenizer.tokenize(tf.constant(["B never z, [CLS]", ""])).to_list()
    assert ids == [[4, 1, 1, 7, 8, 1, 1], []]


def test_learned_words_are_saved_as_a_file(tmp_path):
    tokenizer = learn_tokenizer(WORDS, ["Ünïcode wörds don't stop 1,5 😀"], 100)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.vocabulary == tokenizer.vocabulary
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").split("\n")[4:6] == ["1,5", "don't"]
    texts = tf.constant(["wörds DON'T 😀 words"])
    assert loaded.tokenize(texts).to_list() == tokenizer.tokenize(texts).to_list()


def test_no_word_to_learn_is_one_clear_line():
    with pytest.raises(DataError, match="no word in the training texts"):
        learn_tokenizer(WORDS, ["", " \u200b"], 100)
    assert learn_tokenizer(WORDS, ["a b c"], 2).vocabulary[4:] == ("a",)
