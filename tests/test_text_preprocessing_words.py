"""Texts for tagging: how words are found, where they are, and which token of which word is where."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tensorflow as tf
from test_text_preprocessing import FRESH, Served, encoded, ids, preprocessing

from tlkit.preprocessing.tokenizers import learn_tokenizer
from tlkit.zoo.entry import Tokenizer

FOUND = {
    "don't stop-me now!": ["don't", "stop-me", "now", "!"],
    "see https://a.b/c?d=e. And www.x.org, ok": [
        "see",
        "https://a.b/c?d=e",
        ".",
        "And",
        "www.x.org",
        ",",
        "ok",
    ],
    "mail joe.b+x@ex-am.co.uk!": ["mail", "joe.b+x@ex-am.co.uk", "!"],
    "1,234.5 at 3:30pm 3. 4": ["1,234.5", "at", "3:30", "pm", "3", ".", "4"],
    "中文abc日本": ["中", "文", "abc", "日", "本"],
    "👨‍👩‍👧 👍🏽ok 🇩🇪🇫🇷 ❤️x": ["👨‍👩‍👧", "👍🏽", "ok", "🇩🇪", "🇫🇷", "❤️", "x"],
    "a\0b \u200bx": ["a", "b", "x"],
    "שָׁלוֹם עולם.": ["שָׁלוֹם", "עולם", "."],
    "": [],
    " \u2028\t": [],
    "U.S. @user #tag @ #": ["U", ".", "S", ".", "@user", "#tag", "@", "#"],
    "rock-'n'-roll a--b": ["rock", "-", "'", "n", "'", "-", "roll", "a", "-", "-", "b"],
    "سلام\u200cها e\u0301": ["سلام\u200cها", "e\u0301"],
    "[MASK] x_y": ["[", "MASK", "]", "x_y"],
    "\U0010ffff\ufffd": ["\U0010ffff", "\ufffd"],
}


def test_words_and_their_places_in_code_points():
    texts = list(FOUND)
    words, starts, ends = tf.function(preprocessing("tokens").split_words)(tf.constant(texts))
    assert (starts.dtype, ends.dtype) == (tf.int32, tf.int32)
    rows = zip(texts, words.to_list(), starts.to_list(), ends.to_list(), strict=True)
    for text, found, begins, stops in rows:
        assert [word.decode() for word in found] == FOUND[text]
        assert [text[i:j] for i, j in zip(begins, stops, strict=True)] == FOUND[text]


def test_places_are_those_of_the_string_as_sent_not_of_the_normalised_one():
    pre = preprocessing("tokens", normalize={"unicode": "nfkc", "lowercase": True, "mask_users": True})
    raw = tf.constant(["ﬁne  @Someone  CAFE\u0301"])
    words, starts, ends = pre.split_words(raw)
    assert [word.decode() for word in words.to_list()[0]] == ["ﬁne", "@Someone", "CAFE\u0301"]
    assert (starts.to_list(), ends.to_list()) == ([[0, 5, 15]], [[3, 13, 20]])
    assert [word.decode() for word in pre.decode_batch(raw).to_list()[0]] == ["fine", "user", "caf\u00e9"]


def test_bytes_that_are_not_utf8_count_as_python_counts_them():
    raw = [b"a \xff b", b"\xed\xa0\x80 b", b"\xe4\xb8 b", b"\xf0\x9f\x98 b"]
    words, starts, _ = preprocessing("tokens").split_words(tf.constant(raw))
    for text, found, begins in zip(raw, words.to_list(), starts.to_list(), strict=True):
        assert found[-1] == b"b"
        assert begins[-1] == text.decode("utf-8", "replace").index("b")


def test_word_starts_point_to_first_tokens_and_cut_words_have_none():
    words = tf.ragged.constant([["running", "b", "", "c"], [], list("abcdefgh")], tf.string)
    inputs = encoded(preprocessing("tokens", length=8), words)
    assert inputs["word_starts"] == [
        [1, 3, 4, 5, -1, -1, -1, -1],
        [-1] * 8,
        [1, 2, 3, 4, 5, 6, -1, -1],
    ]
    assert inputs["token_ids"][0][3:7] == [*ids("b"), 1, *ids("c>")]  # a word of nothing is the unknown token
    assert inputs["token_ids"][2] == ids("<abcdef>")
    tail = encoded(preprocessing("tokens", length=8, long_texts="tail"), words)
    assert tail["word_starts"][2] == [-1, -1, 1, 2, 3, 4, 5, 6]
    both = encoded(preprocessing("tokens", length=8, long_texts="head_tail"), words)
    assert both["word_starts"][2] == [1, 2, 3, -1, -1, 4, 5, 6]


def test_a_word_whose_first_token_is_cut_has_no_start():
    words = tf.ragged.constant([["running", "a", "b", "c", "d", "e"]])
    tail = encoded(preprocessing("tokens", length=8, long_texts="tail"), words)
    assert tail["word_starts"] == [[-1, 2, 3, 4, 5, 6]]


def test_words_that_normalise_to_nothing_stay():
    pre = preprocessing("tokens", normalize={"strip_html": True})
    words = tf.ragged.constant([["a", "<br>", "\u200b", "b"]])
    assert encoded(pre, words)["word_starts"] == [[1, 2, 3, 4]]
    assert pre.count_tokens(pre.decode_batch(words)).numpy().tolist() == [6]


@pytest.mark.parametrize("raw", [tf.zeros([0], tf.string), tf.constant([""])])
def test_no_words_give_rows_without_words(raw):
    inputs = tf.function(preprocessing("tokens").from_raw)(raw)
    assert inputs["word_starts"].shape == (len(raw), 0)


def test_a_saved_model_finds_tags_words(tmp_path):
    learned = learn_tokenizer(Tokenizer(kind="words", lowercase=True), ["hello world a b"], 100)
    pre = preprocessing("tokens", tokenizer=learned)
    tf.saved_model.save(Served(pre, [None]), str(tmp_path / "saved"))
    raw = ["Hello, wörld 😀", "", "a [MASK] b\u0000c"]
    code = [sys.executable, "-c", FRESH, str(tmp_path / "saved"), json.dumps(raw)]
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == encoded(pre, tf.constant(raw))
