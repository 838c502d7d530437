"""One pass over all texts, some at a time: read, decode, clean, normalise, and what cannot be used."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.config import Task
from tlkit.config.text import Normalization
from tlkit.data.content import Content, fingerprint, watched
from tlkit.data.records import BETWEEN
from tlkit.data.rows import Note, Rows, Text
from tlkit.preprocessing.text_normalization import normalize_texts

Cleaner = Callable[[Sequence[str]], list[str]]

_TOGETHER = 512  # texts that are looked at at once,
_TOGETHER_BYTES = 2**20  # fewer where their records are long
_LONGEST = 1000  # characters
_REPLACED = "\ufffd"
# UTF-8 that was read as Latin-1 or Windows-1252: é became Ã©, ’ became â€™.
_MOJIBAKE = re.compile(
    "[\u00c3\u00c2][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026]|\u00e2[\u20ac\u201a]|\u00f0\u0178"
)
_JOIN = BETWEEN.decode()


@dataclass(frozen=True)
class TextContent(Content):
    """`samples` are what the graph makes of the texts: object arrays (n,) of str, (n, 2) of str, or (n,) of
    lists of words; None where texts stay in their records, which then have `marks` (see `Examples`).

    Two texts have the same words where their `keys` are equal: they differ in white space and Unicode form at
    most. `shown` are what the manifest shows, of pairs both. `words`, int64 (n, 1) or (n, 2), are how many
    each sample has. `notes` are about texts that are kept.
    """

    samples: npt.NDArray[np.object_] | None
    marks: npt.NDArray[np.int64] | None
    keys: tuple[bytes, ...]
    shown: tuple[tuple[str, ...], ...]
    words: npt.NDArray[np.int64]
    notes: tuple[Note, ...]


def read_text_content(
    rows: Rows, task: Task, normalization: Normalization, clean: Cleaner | None = None
) -> TextContent:
    """Read every text once. `clean` changes the raw texts first; words of `tokens` are never cleaned.

    Texts stay in their records, unless they are cleaned. Cannot be used: a file that is not UTF-8, a text
    that is missing, empty or empty after normalisation, and what the reader found broken.
    """
    chunks = in_chunks(rows, np.arange(len(rows)))
    parts = [
        _read_chunk(rows, chunk.tolist(), task, normalization, clean)
        for chunk in watched(chunks, len(chunks), "Reading texts")
    ]
    stay = rows.records is not None and clean is None
    return TextContent(
        hashes=tuple(chain.from_iterable(part.hashes for part in parts)),
        problems=tuple(chain.from_iterable(part.problems for part in parts)),
        samples=None if stay else np.concatenate([part.samples for part in parts]),
        marks=np.concatenate([part.marks for part in parts]) if stay else None,
        keys=tuple(chain.from_iterable(part.keys for part in parts)),
        shown=tuple(chain.from_iterable(part.shown for part in parts)),
        words=np.concatenate([part.words for part in parts]),
        notes=tuple(chain.from_iterable(part.notes for part in parts)),
    )


def in_chunks(rows: Rows, chosen: npt.NDArray[np.intp]) -> list[npt.NDArray[np.intp]]:
    """The `chosen` rows in their order, as many at a time as may be in memory."""
    sizes = np.full(len(chosen), _TOGETHER_BYTES // _TOGETHER)
    if rows.records is not None:
        sizes = np.maximum(sizes, rows.records.lengths[chosen])
    which = (np.cumsum(sizes) - sizes) // _TOGETHER_BYTES
    return [part for part in np.split(chosen, np.flatnonzero(np.diff(which)) + 1) if len(part)]


def _read_chunk(
    rows: Rows, chunk: Sequence[int], task: Task, normalization: Normalization, clean: Cleaner | None
) -> TextContent:
    problems = {row: rows.broken[row] for row in chunk if row in rows.broken}
    raw: dict[int, Text] = {}
    contents: list[tuple[bytes, ...]] = []
    for row in chunk:
        raw[row], content = _read(rows, row, problems)
        contents.append(content)
    usable = _usable(raw, problems)
    if clean is not None and task != "tokens":
        usable = _usable(_map(usable, clean), problems, " after the NLTK steps")
    samples = _map(usable, lambda texts: normalise(texts, normalization))
    kept = samples if task == "tokens" else _usable(samples, problems, " after normalisation")
    empty: Text = [] if task == "tokens" else ("", "") if task in ("pair", "embed") else ""
    made = [samples.get(row, empty) for row in chunk]
    stay = rows.records is not None and clean is None
    return TextContent(
        hashes=tuple(hashlib.sha256(BETWEEN.join(content)).hexdigest() for content in contents),
        problems=tuple(problems.get(row) for row in chunk),
        samples=None if stay else _object_array(made),
        marks=_marks(contents) if stay else None,
        keys=tuple(hashlib.blake2b(_bytes(_key(text)), digest_size=16).digest() for text in raw.values()),
        shown=tuple(_shown(text, rows) for text in raw.values()),
        words=np.array([_count_words(text) for text in made], np.int64).reshape(len(made), -1),
        notes=tuple(
            Note(rows.describe(row), sign, "kept") for row in kept for sign in _signs(_joined(raw[row]))
        ),
    )


def _read(rows: Rows, row: int, problems: dict[int, str]) -> tuple[Text, tuple[bytes, ...]]:
    """A text, and the bytes that its hash is of. Why there is none goes into `problems`."""
    if rows.records is not None:
        parts = (b"",) * len(rows.records.features)
        try:
            parts = parts if row in problems else rows.records.parts(row)
        except OSError as error:
            problems[row] = f"cannot be read: {error.strerror}"
        texts = [part.decode("utf-8", "replace") for part in parts]
        return (texts[0], texts[1]) if len(texts) > 1 else texts[0], parts
    text: Text = "" if rows.texts is None else rows.texts[row]
    if rows.texts is None and rows.paths is not None:
        try:
            text = Path(rows.paths[row]).read_bytes().decode("utf-8-sig")
        except OSError as error:
            problems.setdefault(row, f"cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            why = f"line {line} is not UTF-8 text (byte 0x{error.object[error.start]:02x})"
            problems.setdefault(row, why)
    return text, (_bytes(_joined(text)),)


def _map(texts: dict[int, Text], function: Cleaner) -> dict[int, Text]:
    """`function` on all strings of `texts`, which keep their form."""
    results = iter(function([part for text in texts.values() for part in parts_of(text)]))
    changed: dict[int, Text] = {}
    for row, text in texts.items():
        if isinstance(text, str):
            changed[row] = next(results)
        elif isinstance(text, tuple):
            changed[row] = (next(results), next(results))
        else:
            changed[row] = [next(results) for _ in text]
    return changed


def normalise(texts: Sequence[str | bytes], normalization: Normalization) -> list[str]:
    """Strings as the graph makes them."""
    with tf.device("CPU:0"):
        values = normalize_texts(tf.constant(list(texts), tf.string), normalization).numpy()
    return [value.decode("utf-8") for value in values]


def _marks(contents: Sequence[tuple[bytes, ...]]) -> npt.NDArray[np.int64]:
    with tf.device("CPU:0"):
        marks = np.asarray(fingerprint(tf.constant(contents, tf.string)))
    return marks[:, 0] if marks.shape[1] == 1 else marks


def _usable(texts: dict[int, Text], problems: dict[int, str], when: str = "") -> dict[int, Text]:
    """Those of `texts` that can be used; why others cannot goes into `problems`."""
    for row, text in texts.items():
        if row not in problems and (problem := _why_unusable(text)):
            problems[row] = problem + when
    return {row: text for row, text in texts.items() if row not in problems}


def _why_unusable(text: Text) -> str | None:
    try:
        _joined(text).encode("utf-8")
    except UnicodeEncodeError as error:
        return f"has half a surrogate pair ({error.object[error.start]!a}), which no UTF-8 text has"
    if isinstance(text, str):
        return None if text.strip() else "is empty"
    if isinstance(text, tuple):
        empty = [number for number, part in zip(("first", "second"), text, strict=True) if not part.strip()]
        return f"is empty ({' and '.join(empty)} text)" if empty else None
    return None if text else "is empty"


def _signs(text: str) -> list[str]:
    """What is odd about a text that is kept."""
    signs = []
    if count := text.count(_REPLACED):
        signs.append(f"has {count} characters that were lost in decoding (U+FFFD)")
    if "\0" in text:
        signs.append(f"has {text.count(chr(0))} NUL characters")
    if found := _MOJIBAKE.search(text):
        signs.append(f"looks like UTF-8 that was read in another encoding ({found[0]!r})")
    return signs


def _key(text: Text) -> str:
    if isinstance(text, str):
        return unicodedata.normalize("NFC", " ".join(text.split()))
    return _JOIN.join(map(_key, text))  # which splitting leaves in none of them


def _shown(text: Text, rows: Rows) -> tuple[str, ...]:
    if rows.records is not None:
        return ("",) * len(rows.records.features)
    shown = text if isinstance(text, tuple) else (" ".join(parts_of(text)),)
    return tuple(writable(one) if len(one) <= _LONGEST else "" for one in shown)


def writable(text: str) -> str:
    """What a CSV file can hold: a NUL shows as its symbol, half a surrogate pair as a question mark."""
    return text.replace("\0", "\u2400").encode("utf-8", "replace").decode("utf-8")


def _count_words(text: Text) -> list[int]:
    if isinstance(text, list):
        return [len(text)]
    return [len(part.split()) for part in parts_of(text)]


def parts_of(text: Text) -> Sequence[str]:
    """The strings of a text."""
    return (text,) if isinstance(text, str) else text


def _joined(text: Text) -> str:
    return _JOIN.join(parts_of(text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _object_array(texts: Sequence[Text]) -> npt.NDArray[np.object_]:
    pairs = bool(texts) and isinstance(texts[0], tuple)
    array = np.empty((len(texts), 2) if pairs else len(texts), dtype=object)
    for place, text in enumerate(texts):
        array[place] = text
    return array
