"""Texts to predict: strings, pairs of them, and lists of words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import tensorflow as tf

from tlkit.data.csv_file import read_utf8
from tlkit.data.table import require_column
from tlkit.errors import DataError
from tlkit.exporting import name_tags
from tlkit.heads import to_scores
from tlkit.preprocessing import TextPreprocessing
from tlkit.workflows.predict_describe import Input, describe, describe_words
from tlkit.workflows.run import Run


def is_one(run: Run, inputs: Any) -> bool:
    """Whether this is one text, or for `pair` a tuple of two."""
    if isinstance(inputs, tuple) and run.config.task == "pair":
        return not any(isinstance(item, tuple) for item in inputs)
    return isinstance(inputs, str | bytes | Path) or not isinstance(inputs, Iterable)


def expand(run: Run, inputs: Any) -> list[Any]:
    """One source per text: what it is, as it came."""
    if is_one(run, inputs):
        return [inputs]
    if isinstance(inputs, pd.DataFrame):
        return _rows(run, inputs)
    if isinstance(inputs, dict):
        raise DataError("Cannot predict from a dict: expected a string, a list of strings, or a DataFrame.")
    return list(inputs.numpy() if tf.is_tensor(inputs) else inputs)


def size(source: Any) -> int:
    """About how long a text is: those of like length are answered together."""
    if isinstance(source, str | bytes):
        return len(source)
    return sum(map(size, source)) if isinstance(source, Iterable) else 0


def read(run: Run, sources: Sequence[Any]) -> list[Input]:
    """Each source as a raw example: a string, a pair of them, or a list of words; cleaned, where the run
    has NLTK steps."""
    inputs = [_read(run, source) for source in sources]
    fine = [one for one in inputs if one.error is None]
    if run.config.task == "tokens" or not fine:
        return inputs
    columns = list(
        zip(*(one.sample if run.config.task == "pair" else (one.sample,) for one in fine), strict=True)
    )
    preprocessing = _preprocessing(run)
    clean = preprocessing.clean
    if clean is not None:
        columns = [tuple(clean(column)) for column in columns]
    normal = [
        preprocessing.normalize(tf.constant([_encode(text) for text in texts])).numpy() for texts in columns
    ]
    rows = zip(zip(*columns, strict=True), zip(*normal, strict=True), strict=True)
    ready = iter([_ready(one, *row) for one, row in zip(fine, rows, strict=True)])
    return [one if one.error else next(ready) for one in inputs]


def answer(run: Run, samples: Sequence[Any], top: int) -> Iterator[dict[str, Any]]:
    """What the run says about each raw example."""
    if run.config.task == "tokens":
        yield from _answer_words(run, samples)
        return
    preprocessing = _preprocessing(run).of_single_texts
    outputs = run.outputs(preprocessing.from_raw(tf.constant(samples)))
    for scores in np.asarray(to_scores(run.config.objective, outputs), "float32"):
        yield describe(scores, run, top)


def _answer_words(run: Run, samples: Sequence[str | list[str]]) -> Iterator[dict[str, Any]]:
    """Tags for texts, whose words are found first, and for lists of words."""
    texts = tf.constant([_encode(sample) if isinstance(sample, str) else b"" for sample in samples])
    words, starts, ends = (part.to_list() for part in _preprocessing(run).split_words(texts))
    for place, sample in enumerate(samples):
        if not isinstance(sample, str):
            words[place] = [_encode(word) for word in sample]
    inputs = _preprocessing(run).from_raw(tf.ragged.constant(words, tf.string, ragged_rank=1))
    scores = to_scores("tokens", run.outputs(inputs))
    lengths = tf.constant([len(row) for row in words])
    named = name_tags(tf.cast(scores, tf.float32), inputs["word_starts"], lengths, run.classes or ())
    tags, numbers = named["tags"].numpy(), named["scores"].numpy()
    for place, sample in enumerate(samples):
        found = words[place]
        text = sample if isinstance(sample, str) else None
        yield describe_words(
            [word.decode("utf-8", "replace") for word in found],
            [tag.decode("utf-8") for tag in tags[place, : len(found)]],
            [float(score) for score in numbers[place, : len(found)]],
            list(zip(starts[place], ends[place], strict=True)) if text is not None else None,
            text,
            run.classes or (),
        )


def _preprocessing(run: Run) -> TextPreprocessing:
    return cast(TextPreprocessing, run.preprocessing)


def _rows(run: Run, frame: pd.DataFrame) -> list[Any]:
    columns = run.config.data.columns
    if run.config.task == "tokens" and columns.tokens in frame.columns:
        return [list(row) if isinstance(row, np.ndarray) else row for row in frame[columns.tokens]]
    names = {"data.columns.text": columns.text}
    if run.config.task == "pair":
        names["data.columns.text_b"] = columns.text_b
    for key, name in names.items():
        require_column(frame, name, key, "DataFrame")
    if len(names) == 1:
        return frame[columns.text].tolist()
    return list(frame[[columns.text, columns.text_b]].itertuples(index=False, name=None))


def _read(run: Run, source: Any) -> Input:
    if isinstance(source, Path):
        source = read_utf8(source)
    if run.config.task == "pair":
        return _read_pair(source)
    if run.config.task == "tokens" and isinstance(source, list | tuple):
        return _read_words(source)
    text = _as_text(source)
    return Input({"input": _shown(source)}, text, error=_refusal(source, text))


def _read_pair(source: Any) -> Input:
    if isinstance(source, str | bytes) or not isinstance(source, Sequence | np.ndarray) or len(source) != 2:
        return Input({"input": _shown(source)}, error="is no pair: expected a tuple of two texts")
    shown = {"input": _shown(source[0]), "input_b": _shown(source[1])}
    texts = tuple(_as_text(text) for text in source)
    names = ("the first text", "the second text")
    return Input(shown, texts, _first_refusal(names, list(source), texts))


def _read_words(source: Sequence[Any]) -> Input:
    shown = {"input": [_shown(word) for word in source]}
    words = [_as_text(word) for word in source]
    names = [f"word {number}" for number in range(1, len(words) + 1)]
    return Input(shown, words, _first_refusal(names, source, words) if words else "has no words")


def _ready(one: Input, texts: tuple[str, ...], normal: tuple[bytes, ...]) -> Input:
    """The example as the graph takes it, or refused where nothing is left of one of its texts."""
    if not all(text.strip() for text in normal):
        return replace(one, sample=None, error="nothing is left of it after the preprocessing")
    sample = [_encode(text) for text in texts]
    return replace(one, sample=sample if len(sample) > 1 else sample[0])


def _as_text(value: Any) -> str | None:
    """A string, decoded where it is bytes; None where it is no text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None


def _refusal(value: Any, text: str | None) -> str | None:
    """Why a value cannot be used as a text."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "is missing"
    if text is None:
        return f"is no text but {type(value).__name__}"
    return None if text.strip() else "is empty"


def _first_refusal(names: Sequence[str], values: Sequence[Any], texts: Sequence[str | None]) -> str | None:
    refusals = [_refusal(value, text) for value, text in zip(values, texts, strict=True)]
    return next((f"{name} {why}" for name, why in zip(names, refusals, strict=True) if why), None)


def _shown(value: Any) -> Any:
    text = _as_text(value)
    if text is not None:
        return text
    missing = _refusal(value, None) == "is missing"
    return None if missing else str(value)


def _encode(text: str) -> bytes:
    """UTF-8; half a surrogate pair becomes `?`, one code point as it is."""
    return text.encode("utf-8", "replace")
