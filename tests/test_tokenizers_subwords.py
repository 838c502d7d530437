"""Byte-pair and SentencePiece ids equal those of the original tokenizers, on small vocabularies."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tensorflow as tf
from test_text_preprocessing import FRESH, Served, encoded
from test_tokenizers import FIXTURES, differing, table

from tlkit.config import PreprocessingConfig
from tlkit.errors import DataError
from tlkit.preprocessing import make_text_preprocessing
from tlkit.preprocessing.tokenizers import load_tokenizer, make_tokenizer
from tlkit.zoo.entry import TextInput, Tokenizer

FAIRSEQ = {"start": "<s>", "end": "</s>", "separator": ("</s>", "</s>"), "pad": "<pad>", "unknown": "<unk>"}
GOOGLE = {"kind": "sentencepiece", "files": ("albert.model",), "pad": "<pad>", "unknown": "<unk>"}
FACTS = {
    "roberta": Tokenizer(kind="bytepair", files=("bytepair_vocab.json", "bytepair_merges.txt"), **FAIRSEQ),
    "xlm_roberta": Tokenizer(kind="sentencepiece", files=("xlm_roberta.model",), **FAIRSEQ),
    "xlm_roberta_bpe": Tokenizer(kind="sentencepiece", files=("bpe.model",), **FAIRSEQ),
    "deberta_v3": Tokenizer(kind="sentencepiece", files=("deberta_v3.model",)),
    "albert": Tokenizer(lowercase=True, strip_accents=True, **GOOGLE),
    "f_net": Tokenizer(**GOOGLE),
}
# start, end, pad, unknown, separators
SPECIAL = {
    "roberta": (0, 2, 1, 3, (2, 2)),
    "xlm_roberta": (0, 2, 1, 3, (2, 2)),
    "xlm_roberta_bpe": (0, 2, 1, 3, (2, 2)),
    "deberta_v3": (1, 2, 0, 3, (2,)),
    "albert": (2, 3, 0, 1, (3,)),
    "f_net": (2, 3, 0, 1, (3,)),
}


@pytest.mark.parametrize("family", FACTS)
def test_ids_equal_the_original_tokenizers(family, tmp_path):
    tokenizer = make_tokenizer(FACTS[family], FIXTURES)
    rows = table("subwords")
    assert len(rows) >= 200
    assert differing(tokenizer, rows, family) == []
    special = (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id, tokenizer.unknown_id)
    assert (*special, tokenizer.separator_ids) == SPECIAL[family]
    tokenizer.save(tmp_path)
    assert differing(load_tokenizer(tmp_path), rows, family) == []


@pytest.mark.parametrize("family", ["roberta", "xlm_roberta"])
def test_no_texts_give_no_ids(family):
    tokenizer = make_tokenizer(FACTS[family], FIXTURES)
    tokenize = tf.function(tokenizer.tokenize)
    assert tokenize(tf.zeros([0], tf.string)).to_list() == []
    assert tokenize(tf.constant([""])).to_list() == [[]]
    assert tokenizer.vocabulary_size > max(max(row[family], default=0) for row in table("subwords"))


@pytest.mark.parametrize("family", ["roberta", "xlm_roberta"])
def test_a_word_by_itself_has_the_tokens_of_one_in_a_text(family):
    tokenizer = make_tokenizer(FACTS[family], FIXTURES)
    text_input = TextInput(sequence_length=32, tokenizer=FACTS[family])
    pre = make_text_preprocessing(text_input, PreprocessingConfig(), tokenizer, "tokens")
    words = tf.ragged.constant([["a", "movie", "is"]])
    inside = tokenizer.tokenize(tf.constant([" a movie is"])).to_list()[0]
    inputs = encoded(pre, words)
    assert inputs["token_ids"][0][1 : 1 + len(inside)] == inside
    assert inputs["word_starts"][0][0] == 1


@pytest.mark.parametrize("family", ["roberta", "deberta_v3"])
def test_a_saved_model_holds_it_all(family, tmp_path):
    text_input = TextInput(sequence_length=32, tokenizer=FACTS[family])
    tokenizer = make_tokenizer(FACTS[family], FIXTURES)
    pre = make_text_preprocessing(text_input, PreprocessingConfig(), tokenizer, "pair")
    tf.saved_model.save(Served(pre, [None, 2]), str(tmp_path / "saved"))
    raw = [["Naïve  café, 中文 😀!", "it's"], ["", "[MASK] </s>"], ["the movie " * 30, "\u0000 x"]]
    code = [sys.executable, "-c", FRESH, str(tmp_path / "saved"), json.dumps(raw)]
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == encoded(pre, tf.constant(raw))


def test_files_that_are_no_vocabulary_are_one_clear_line(tmp_path):
    for name, facts in (
        ("xlm_roberta.model", FACTS["xlm_roberta"]),
        ("bytepair_vocab.json", FACTS["roberta"]),
    ):
        with pytest.raises(DataError, match="Cannot read the vocabulary"):
            make_tokenizer(facts, tmp_path)
        (tmp_path / name).write_text("[]")
    with pytest.raises(DataError, match="is not a SentencePiece model"):
        make_tokenizer(FACTS["xlm_roberta"], tmp_path)
    with pytest.raises(DataError, match="must map tokens to numbers"):
        make_tokenizer(FACTS["roberta"], tmp_path)
    (tmp_path / "bytepair_vocab.json").write_text('{"a": 0}')
    (tmp_path / "bytepair_merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(DataError, match="has no </s>, <pad>, <s>, <unk>"):
        make_tokenizer(FACTS["roberta"], tmp_path)


@pytest.mark.parametrize("family", FACTS)
def test_a_new_random_seed_leaves_a_tokenizer_as_it_was(family):
    tokenizer = make_tokenizer(FACTS[family], FIXTURES)
    before = tokenizer.tokenize(tf.constant(["a text"])).to_list()
    tf.random.set_seed(1)  # TensorFlow then drops its kernels, and what only they hold
    batches = tf.data.Dataset.from_tensors(["a text"]).map(
        lambda texts: tokenizer.tokenize(texts).to_tensor()
    )
    assert next(iter(batches)).numpy().tolist() == before
