"""One pass over all texts: read, decode, clean, normalise, and what cannot be used."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.config import Task
from tlkit.config.text import Normalization
from tlkit.data.content import Content, watched
from tlkit.data.rows import Note, Rows, Text
from tlkit.preprocessing.text_normalization import normalize_texts

Cleaner = Callable[[Sequence[str]], list[str]]

_CHUNK = 1024
_REPLACED = "\ufffd"
# UTF-8 that was read as Latin-1 or Windows-1252: é became Ã©, ’ became â€™.
_MOJIBAKE = re.compile(
    "[\u00c3\u00c2][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026]|\u00e2[\u20ac\u201a]|\u00f0\u0178"
)
_JOIN = "\x1f"


@dataclass(frozen=True)
class TextContent(Content):
    """`raw` are the texts as read, `samples` what the graph makes of them: object arrays (n,) of str, (n, 2)
    of str, or (n,) of lists of words. Two texts have the same words where their `keys` are equal: they differ
    in white space and Unicode form at most. `notes` are about texts that are kept."""

    raw: tuple[Text, ...]
    samples: npt.NDArray[np.object_]
    keys: tuple[Hashable, ...]
    notes: tuple[Note, ...]


def read_text_content(
    rows: Rows, task: Task, normalization: Normalization, clean: Cleaner | None = None
) -> TextContent:
    """Read every text once. `clean` changes the raw texts first; words of `tokens` are never cleaned.

    Cannot be used: a file that is not UTF-8, a text that is missing, empty or empty after normalisation, and
    what the reader found broken.
    """
    raw, problems = _read(rows)
    problems.update(rows.broken)
    _find_unusable(raw, problems)
    cleaned = raw
    if clean is not None and task != "tokens":
        cleaned = _map([text if row not in problems else "" for row, text in enumerate(raw)], clean)
        _find_unusable(cleaned, problems, " after the NLTK steps")
    usable = [row for row in range(len(rows)) if row not in problems]
    normalised = dict(
        zip(
            usable,
            _map([cleaned[row] for row in usable], lambda texts: _normalise(texts, normalization)),
            strict=True,
        )
    )
    samples = _empty_samples(len(rows), task)
    for row, text in normalised.items():
        if task != "tokens" and (problem := _why_unusable(text)):
            problems[row] = f"{problem} after normalisation"
        samples[row] = text
    notes = [
        Note(rows.describe(row), sign, "kept")
        for row in usable
        if row not in problems
        for sign in _signs(_joined(raw[row]))
    ]
    return TextContent(
        hashes=tuple(
            hashlib.sha256(_joined(text).encode("utf-8", "surrogatepass")).hexdigest() for text in raw
        ),
        problems=tuple(problems.get(row) for row in range(len(rows))),
        raw=tuple(raw),
        samples=samples,
        keys=tuple(map(_key, raw)),
        notes=tuple(notes),
    )


def _read(rows: Rows) -> tuple[list[Text], dict[int, str]]:
    """Raw texts, and why some rows have none."""
    if rows.texts is not None:
        return list(rows.texts), {}
    assert rows.paths is not None
    texts: list[Text] = []
    problems: dict[int, str] = {}
    for row, path in enumerate(watched(rows.paths, len(rows), "Reading texts")):
        try:
            texts.append(Path(path).read_bytes().decode("utf-8-sig"))
        except OSError as error:
            problems[row] = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            problems[row] = f"line {line} is not UTF-8 text (byte 0x{error.object[error.start]:02x})"
        if row in problems:
            texts.append("")
    return texts, problems


def _map(texts: Sequence[Text], function: Cleaner) -> list[Text]:
    """`function` on all strings of `texts`, which keep their form."""
    flat = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
    starts = range(0, len(flat), _CHUNK)
    results = iter(
        [
            part
            for start in watched(starts, len(starts), "Normalising texts")
            for part in function(flat[start : start + _CHUNK])
        ]
    )
    changed: list[Text] = []
    for text in texts:
        if isinstance(text, str):
            changed.append(next(results))
        elif isinstance(text, tuple):
            changed.append((next(results), next(results)))
        else:
            changed.append([next(results) for _ in text])
    return changed


def _normalise(texts: Sequence[str], normalization: Normalization) -> list[str]:
    with tf.device("CPU:0"):
        values = normalize_texts(tf.constant(list(texts), tf.string), normalization).numpy()
    return [value.decode("utf-8") for value in values]


def _find_unusable(texts: Sequence[Text], problems: dict[int, str], when: str = "") -> None:
    for row, text in enumerate(texts):
        if row not in problems and (problem := _why_unusable(text)):
            problems[row] = problem + when


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


def _key(text: Text) -> Hashable:
    if isinstance(text, str):
        return unicodedata.normalize("NFC", " ".join(text.split()))
    return tuple(map(_key, text))


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else _JOIN.join(text)


def _empty_samples(count: int, task: Task) -> npt.NDArray[np.object_]:
    samples = np.empty((count, 2) if task in ("pair", "embed") else count, dtype=object)
    if task == "tokens":
        for row in range(count):
            samples[row] = []
    else:
        samples[:] = ""
    return samples
