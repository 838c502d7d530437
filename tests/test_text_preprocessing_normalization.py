"""Normalisation in the graph, on awkward text."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
import tensorflow as tf

from tlkit import zoo
from tlkit.config import PreprocessingConfig
from tlkit.config.text import Normalization
from tlkit.preprocessing import make_text_preprocessing, make_tokenizer
from tlkit.preprocessing.text_normalization import normalize_texts
from tlkit.zoo.fetch import fetch_weights

FIXTURES = Path(__file__).parent / "fixtures" / "tokens"


def normal(text: str | bytes, **options) -> str:
    return normalize_texts(tf.constant(text), Normalization(**options)).numpy().decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>one</p><p>two<br/>three</p>", "one two three"),
        ("<b>bo</b>ld and <i class='x y'>italic</i>", "bold and italic"),
        ('<a href="http://x.y/?a>b">link</a>', "link"),
        ("<div><p><b>deep</b></p></div>", "deep"),
        ("<<b>b>", "<b>"),
        ("a < b and c > d", "a < b and c > d"),
        ("a<b and c>d, x<y", "a<b and c>d, x<y"),
        ("I <3 you >:( <unk> <user>", "I <3 you >:( <unk> <user>"),
        ("x <!-- not\nshown --> y<script>if (a<b) {}</script>z", "x y z"),
        ("<P ALIGN=left>caps</P><input disabled>", "caps"),
        ("AT&amp;T &lt;b&gt; &quot;x&quot; it&#39;s it&#x27;s", "AT&T <b> \"x\" it's it's"),
        ("caf&eacute;&nbsp;&#233;&#x00E9; &hellip; &euro;5", "café éé … €5"),
        ("&amp;lt; &unknown; R&D; &", "&lt; &unknown; R&D; &"),
        ("unclosed <b and <a href=", "unclosed <b and <a href="),
        ("<b>שלום</b> <i>مرحبا</i> <u>😀</u>", "שלום مرحبا 😀"),
    ],
)
def test_html(text, expected):
    assert normal(text, strip_html=True) == expected


def test_entities_are_those_of_the_standard_library():
    text = "&Agrave;&szlig;&yuml;&ntilde;&copy;&frac12;&mdash;&ldquo;&rsquo;&#8212;&#X2014;&bull;&amp;amp;"
    assert normal(text, strip_html=True, unicode="none") == html.unescape(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://a.b/c?d=e#f, or WWW.x.org/.", "see url, or url."),
        ("(http://a.b/c) 'ftp://x.y'", "(url) 'url'"),
        ("http:// www. alone", "http:// www. alone"),
        ("mail@www.example", "mail@url"),
        ("http://пример.рф/путь שלום", "url שלום"),
        ("x.com stays", "x.com stays"),
    ],
)
def test_urls(text, expected):
    assert normal(text, mask_urls=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@bob: hi @Älice_1, @x@y", "user: hi user, user@y"),
        ("joe@example.com a.b+c@d.e", "joe@example.com a.b+c@d.e"),
        ("@ alone, a @ b, @@", "@ alone, a @ b, @@"),
        ("(@bob) .@bob RT@bob", "(user) .user RT@bob"),
        ("x.com/@bob", "x.com/@bob"),
        ("@عمر 😀@bob", "user 😀user"),
    ],
)
def test_users(text, expected):
    assert normal(text, mask_users=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234.5 and 7", "number and number"),
        ("1 2 3 4 5", "number number number number number"),
        ("$100, 50%! -3", "$number, number%! -number"),
        ("2024-01-31 at 12:30.", "number-number-number at number."),
        ("mp3 v1.2 covid19 5kg 1.5kg 3rd x_1", "mp3 v1.2 covid19 5kg 1.5kg 3rd x_1"),
        ("1... 2, 3: (4)", "number... number, number: (number)"),
        (".5 0.5 a.5", ".number number a.5"),
        ("٣٤ १२ ３", "number number number"),
        ("é3 3é", "é3 3é"),
    ],
)
def test_numbers(text, expected):
    assert normal(text, mask_numbers=True) == expected


def test_unicode_forms_and_case():
    assert normal("e\u0301 ﬁ ①") == "é ﬁ ①"
    assert normal("e\u0301 ﬁ ①", unicode="nfkc") == "é fi 1"
    assert normal("e\u0301", unicode="none") == "e\u0301"
    assert normal("ÀB\x00CÉ", lowercase=True) == "àb\x00cé"
    assert normal("ÄÖ ΟΔΟΣ İ", lowercase=True) == "äö οδος i\u0307"


def test_white_space():
    assert normal("\u00a0 a \t\r\n\u2028b\u3000") == "a b"
    assert normal(" a  b ", whitespace=False) == " a  b "
    assert normal("a\u200bb\x00c") == "a\u200bb\x00c"


def test_everything_together_in_the_stated_order():
    text = "<b>HELLO</b> @Bob &amp; http://X.y/1,2 paid 1,000&nbsp;E\u0301"
    options = {
        "strip_html": True,
        "mask_urls": True,
        "mask_users": True,
        "mask_numbers": True,
        "lowercase": True,
    }
    assert normal(text, **options) == "hello user & url paid number é"


def test_shape_is_kept_and_nothing_is_lost_on_empty_or_invalid_strings():
    raw = tf.constant([[b"a  b", b""], [b"\xff", b"\x00"]])
    assert normalize_texts(raw, Normalization()).numpy().tolist() == [[b"a b", b""], [b"\xef\xbf\xbd", b"\0"]]
    everything = Normalization(strip_html=True, mask_urls=True, mask_users=True, mask_numbers=True)
    assert normalize_texts(tf.zeros([0, 2], tf.string), everything).shape == (0, 2)


@pytest.mark.real
def test_default_normalisation_keeps_minilm_ids():
    entry = zoo.get("minilm_l6")
    tokenizer = make_tokenizer(entry.input.tokenizer, fetch_weights(entry))
    pre = make_text_preprocessing(
        entry.input, PreprocessingConfig(sequence_length=512), tokenizer, "classify"
    )
    lines = (FIXTURES / "wordpiece.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    ids = pre.from_raw(tf.constant([row["text"] for row in rows]))["token_ids"].numpy()
    for row, got in zip(rows, ids, strict=True):
        assert got[got > 0].tolist() == [101, *row["minilm"][:510], 102], ascii(row["text"][:60])
