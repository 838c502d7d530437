"""From strings to padded model inputs: special tokens, truncation, windows, buckets, and the SavedModel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tlkit.config import PreprocessingConfig
from tlkit.errors import ConfigError
from tlkit.preprocessing.text import (
    TextPreprocessing,
    bucket_sizes,
    default_sequence_length,
    make_text_preprocessing,
)
from tlkit.preprocessing.tokenizers import make_tokenizer
from tlkit.zoo.entry import TextInput, Tokenizer

FIXTURES = Path(__file__).parent / "fixtures" / "tokens"
FACTS = Tokenizer(kind="wordpiece", files=("wordpiece_vocab.txt",), lowercase=True, strip_accents=True)
TOKENIZER = make_tokenizer(FACTS, FIXTURES)
PAD, UNK, START, END = TOKENIZER.pad_id, TOKENIZER.unknown_id, TOKENIZER.start_id, TOKENIZER.end_id
LETTERS = {letter: TOKENIZER.vocabulary.index(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}


def preprocessing(task: str = "classify", length: int = 8, mask: bool = True, tokenizer=TOKENIZER, **spec):
    text_input = TextInput(sequence_length=64, tokenizer=tokenizer.facts, mask=mask, segments=True)
    config = PreprocessingConfig(sequence_length=length, **{"bucketing": False} | spec)
    return make_text_preprocessing(text_input, config, tokenizer, task)


def ids(text: str) -> list[int]:
    """`<` start, `>` end, `_` pad, letters as words."""
    return [{"<": START, ">": END, "_": PAD}.get(sign) or LETTERS.get(sign, PAD) for sign in text]


def encoded(pre: TextPreprocessing, raw) -> dict:
    return {name: values.numpy().tolist() for name, values in tf.function(pre.from_raw)(raw).items()}


def test_texts_are_framed_and_padded_to_the_longest():
    inputs = encoded(preprocessing(), tf.constant(["a b c", "", "d"]))
    assert inputs["token_ids"] == [ids("<abc>"), ids("<>___"), ids("<d>__")]
    assert inputs["padding_mask"] == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert inputs["segment_ids"] == [[0] * 5] * 3


@pytest.mark.parametrize(
    ("kept", "expected"), [("head", "<abcdef>"), ("tail", "<efghij>"), ("head_tail", "<abchij>")]
)
def test_what_is_kept_of_a_long_text(kept, expected):
    inputs = encoded(preprocessing(long_texts=kept), tf.constant(["a b c d e f g h i j", "a b"]))
    assert inputs["token_ids"] == [ids(expected), ids("<ab>____")]


def test_an_odd_token_goes_to_the_head():
    pre = preprocessing(length=9, long_texts="head_tail")
    assert encoded(pre, tf.constant(["a b c d e f g h i j"]))["token_ids"] == [ids("<abcdhij>")]


@pytest.mark.parametrize(
    ("pair", "tokens", "segments"),
    [
        (["a b", "c"], "<ab>c>", "000011"),
        (["", ""], "<>>", "001"),
        (["a b c d e f g", "x y"], "<abc>xy>", "00000111"),  # the longer one is cut
        (["a", "u v w x y z"], "<a>uvwx>", "00011111"),
        (["a b c d", "w x y z"], "<ab>wxy>", "00001111"),  # both: the odd token to the second
        (["a b c d e", "w x y"], "<abc>wx>", "00000111"),  # ... or to the longer
    ],
)
def test_pairs_are_cut_longest_first(pair, tokens, segments):
    inputs = encoded(preprocessing("pair"), tf.constant([pair]))
    assert inputs["token_ids"] == [ids(tokens)]
    assert inputs["segment_ids"] == [[int(sign) for sign in segments]]
    assert inputs["padding_mask"] == [[1] * len(tokens)]


def test_segments_of_padding_are_zero_and_absent_where_a_backbone_has_none():
    inputs = encoded(preprocessing("pair"), tf.constant([["a", "b"], ["a b", "c"]]))
    assert inputs["segment_ids"] == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]]
    text_input = TextInput(sequence_length=64, tokenizer=FACTS)
    pre = make_text_preprocessing(text_input, PreprocessingConfig(), TOKENIZER, "pair")
    assert set(encoded(pre, tf.constant([["a", "b"]]))) == {"token_ids", "padding_mask"}


def test_embed_interleaves_the_two_texts():
    inputs = encoded(preprocessing("embed"), tf.constant([["a", "b c"], ["d", "e"]]))
    assert inputs["token_ids"] == [ids("<a>_"), ids("<bc>"), ids("<d>_"), ids("<e>_")]


def test_windows_overlap_by_a_quarter_and_hold_every_token():
    pre = preprocessing(length=10, long_texts="windows")
    inputs = encoded(
        pre, tf.constant(["a b c d e f g h", "a b c d e f g h i", "", "a b c d e f g h i j k l m n o"])
    )
    assert inputs["token_ids"] == [
        [ids("<abcdefgh>"), ids("__________"), ids("__________")],
        [ids("<abcdefgh>"), ids("<ghi>_____"), ids("__________")],
        [ids("<>________"), ids("__________"), ids("__________")],
        [ids("<abcdefgh>"), ids("<ghijklmn>"), ids("<mno>_____")],
    ]
    assert [[sum(window) for window in text] for text in inputs["padding_mask"]] == [
        [10, 0, 0],
        [10, 5, 0],
        [2, 0, 0],
        [10, 10, 5],
    ]


def test_texts_that_all_fit_take_one_window():
    inputs = encoded(preprocessing(long_texts="windows"), tf.constant(["a b", "c"]))
    assert inputs["token_ids"] == [[ids("<ab>")], [ids("<c>_")]]


@pytest.mark.parametrize("task", ["pair", "tokens", "embed"])
def test_windows_are_refused_where_a_text_has_no_single_score(task):
    with pytest.raises(ConfigError, match=f"the task is '{task}'"):
        preprocessing(task, long_texts="windows")


def test_batches_are_padded_to_a_bucket():
    pre = preprocessing(length=40, bucketing=True)
    assert pre.buckets == (16, 32, 40)
    widths = [encoded(pre, tf.constant(["a " * n]))["token_ids"] for n in (1, 14, 15, 30, 31, 60)]
    assert [len(rows[0]) for rows in widths] == [16, 16, 32, 32, 40, 40]


def test_without_a_mask_every_batch_has_the_full_length():
    inputs = encoded(preprocessing(mask=False), tf.constant(["a"]))
    assert inputs["token_ids"] == [ids("<a>_____")]


def test_tokens_are_counted_before_anything_is_cut():
    assert preprocessing().count_tokens(tf.constant(["", "a b", "a " * 50])).numpy().tolist() == [2, 4, 52]
    pairs = tf.constant([["a b", "c"], ["", "a " * 50]])
    assert preprocessing("pair").count_tokens(pairs).numpy().tolist() == [6, 53]
    assert preprocessing("embed").count_tokens(pairs).numpy().tolist() == [4, 52]


@pytest.mark.parametrize("task", ["classify", "pair", "embed"])
@pytest.mark.parametrize("mask", [True, False])
def test_no_texts_give_no_rows(task, mask):
    shape = [0] if task == "classify" else [0, 2]
    inputs = encoded(preprocessing(task, mask=mask), tf.zeros(shape, tf.string))
    assert all(values == [] for values in inputs.values())


def test_bytes_that_are_not_utf8_become_replacement_characters():
    raw = tf.constant([b"a \xff b", b"a \xed\xa0\x80 b", b"\xc3", b"a\x00b", b""])
    samples = preprocessing().normalize(raw)
    assert [text.decode() for text in samples.numpy()][:1] == ["a \ufffd b"]
    assert encoded(preprocessing(), raw)["token_ids"][0][:4] == ids("<ab>")


def test_a_text_of_ten_megabytes_costs_what_a_page_does():
    pre = preprocessing()
    text = tf.constant([b"a b c d e f g h " * 640_000])
    assert encoded(pre, text)["token_ids"] == [ids("<abcdef>")]
    assert len(pre._within_reach(text).numpy()[0]) == 8 * 256
    tail = preprocessing(long_texts="tail")
    assert encoded(tail, text)["token_ids"] == [ids("<cdefgh>")]


def test_a_sequence_longer_than_the_backbone_takes_is_refused():
    with pytest.raises(ConfigError, match="65 tokens are too many for this backbone, which takes 64"):
        preprocessing(length=65)


def test_default_length_holds_most_texts_and_no_more_than_128():
    text_input = TextInput(sequence_length=512, tokenizer=FACTS)
    assert default_sequence_length(text_input, [20] * 99 + [500]) == 24
    assert default_sequence_length(text_input, [300] * 10) == 128
    assert default_sequence_length(text_input, []) == 128
    assert default_sequence_length(TextInput(sequence_length=60, tokenizer=FACTS), [300]) == 60
    assert bucket_sizes(128) == (16, 32, 48, 64, 96, 128)
    assert bucket_sizes(20) == (16, 20)


class Served(tf.Module):
    def __init__(self, pre: TextPreprocessing, shape: list) -> None:
        super().__init__()
        self.held = pre.trackables
        self.serve = tf.function(pre.from_raw, input_signature=[tf.TensorSpec(shape, tf.string)])


FRESH = """
import json, sys
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load(sys.argv[1])
outputs = model.serve(tf.constant(json.loads(sys.argv[2])))
print(json.dumps({name: values.numpy().tolist() for name, values in outputs.items()}))
"""


@pytest.mark.parametrize("task", ["classify", "pair"])
def test_a_saved_model_holds_it_all(task, tmp_path):
    texts = ["Naïve café, İstanbul 中文 😀!", "", "hello " * 30, "[MASK] a\u00a0b\u200bc\u0000"]
    raw = texts if task == "classify" else [[text, "the movie"] for text in texts]
    pre = preprocessing(task, bucketing=True)
    tf.saved_model.save(Served(pre, [None] if task == "classify" else [None, 2]), str(tmp_path / "saved"))
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "saved"), json.dumps(raw)],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    for name, values in pre.from_raw(tf.constant(raw)).items():
        np.testing.assert_array_equal(loaded[name], values)
