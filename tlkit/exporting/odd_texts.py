"""Texts that people send and tests forget: empty, endless, in other scripts, broken."""

from __future__ import annotations

from collections.abc import Sequence

ODD_TEXTS: dict[str, bytes] = {
    "empty": b"",
    "white space": b" \t\r\n ",
    "one letter": b"a",
    "accents": "Crème brûlée, naïve façade, Ångström".encode(),
    "accents of their own": "Cre\u0300me bru\u0302le\u0301e".encode(),
    "emoji": "fine 👍🏽 by me 👩‍👩‍👧‍👦 🇩🇪".encode(),
    "right to left": "שלום עולם, مرحبا بالعالم and back".encode(),
    "no spaces": "这部电影非常好看。日本語の文章です。".encode(),
    "odd spaces": "a\u00a0b\u200bc\u2028d\u3000e\ufefff".encode(),
    "mark-up": b"<p>Ten &amp; <b>two</b><br/>see https://example.org/?q=1 @someone #tag</p>",
    "special tokens": b"[CLS] a [SEP] b [MASK] <s> </s> <pad> [UNK]",
    "NUL": b"before\x00after\x00",
    "control characters": b"a\x01b\x07c\x1bd\x7fe",
    "not UTF-8": b"caf\xe9 \xff\xfe \xc3( \xed\xa0\x80 end",
    "one endless word": b"x" * 5_000,
    "very long": b"A sentence that comes again and again. " * 200,
}


def add_odd_texts(examples: Sequence[bytes], at_least: int = 32) -> list[tuple[str, bytes]]:
    """The examples, each odd text once, and odd endings of the examples up to `at_least`.

    Returns:
        Pairs of what a text is (`as given` for the examples themselves, which come first) and the text.
    """
    texts = [("as given", example) for example in examples]
    texts += ODD_TEXTS.items()
    bases = list(examples) or [b"A text.", b"Another one, somewhat longer!"]
    odd = [(name, text) for name, text in ODD_TEXTS.items() if len(text) < 200]
    for turn in range(max(at_least - len(texts), 0)):
        name, text = odd[turn % len(odd)]
        texts.append((f"as given, then {name}", bases[turn % len(bases)] + b" " + text))
    return texts
