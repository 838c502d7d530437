"""Texts in memory: lists with labels, and `tf.data.Dataset`s of strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tlkit.config import DataConfig, Task
from tlkit.data.arrays import as_sequence, as_tuples, as_weights, label_table
from tlkit.data.rows import Rows, Text
from tlkit.data.text_table import as_text, parse_list
from tlkit.errors import DataError

_FORM = {
    "pair": "pairs of texts",
    "embed": "pairs of texts",
    "tokens": "lists of words",
}


def read_text_arrays(source: Sequence[Any], spec: DataConfig, task: Task) -> Rows:
    """The rows of `(texts, labels)` or `(texts, labels, weights)`.

    `texts` is a sequence of strings, of pairs of strings (`pair`, `embed`), or of lists of words (`tokens`;
    `labels` are then lists of tags). For `embed` the labels may be None.

    Raises DataError for another form and for lengths that differ.
    """
    if len(source) not in (2, 3):
        raise DataError(
            f"Expected (texts, labels) or (texts, labels, weights), received {len(source)} items."
        )
    inputs = as_sequence(source[0], "texts")
    labels = None if source[1] is None and task == "embed" else as_sequence(source[1], "labels")
    weights = as_weights(source[2]) if len(source) == 3 and source[2] is not None else None
    lengths = [len(part) for part in (inputs, labels, weights) if part is not None]
    if len(set(lengths)) != 1:
        raise DataError(
            f"texts, labels and weights must be of one length, received {' and '.join(map(str, lengths))}."
        )
    if not lengths[0]:
        raise DataError("(texts, labels) holds no examples.")
    return Rows(
        where="(texts, labels)",
        name="texts",
        labels=_labels(labels, len(inputs), task),
        texts=[_text(value, row, task) for row, value in enumerate(inputs)],
        weights=weights,
    )


def read_text_dataset(dataset: tf.data.Dataset, spec: DataConfig, task: Task) -> Rows:
    """The rows of a dataset of (text, label) or (text, label, weight), batched or not.

    Raises DataError where it does not end or gives something else.
    """
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise DataError("The tf.data.Dataset never ends (repeat?): take a number of examples with .take(n).")
    if task not in _FORM:
        dataset = as_tuples(dataset, (spec.columns.text,), spec)
    element = dataset.element_spec
    form = _FORM.get(task, "strings")
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        raise DataError(f"The tf.data.Dataset must give ({form}, labels), received {element}.")
    wanted = 0 if task not in _FORM else 1
    parts: list[list[Any]] = [[] for _ in element]
    for text, *rest in dataset:
        value = tf.stack(text, axis=-1) if isinstance(text, tuple) else text
        if value.dtype != tf.string or value.shape.rank not in (wanted, wanted + 1):
            raise DataError(f"The tf.data.Dataset must give ({form}, labels), received {element[0]}.")
        is_batch = value.shape.rank == wanted + 1
        for part, given in zip(parts, (value, *rest), strict=True):
            values = given.to_list() if isinstance(given, tf.RaggedTensor) else given.numpy()
            part.extend(values if is_batch else [values])
    if not parts[0]:
        raise DataError("The tf.data.Dataset holds no examples.")
    rows = read_text_arrays(parts, spec, task)
    return Rows(
        where="tf.data.Dataset", name="dataset", labels=rows.labels, texts=rows.texts, weights=rows.weights
    )


def _text(value: Any, row: int, task: Task) -> Text:
    if task not in _FORM:
        if value is not None and not isinstance(value, str | bytes | float):
            raise DataError(f"texts: row {row + 1} is no string, received {type(value).__name__}.")
        return as_text(value)
    items = value.tolist() if isinstance(value, np.ndarray) else value
    if task == "tokens" and isinstance(items, list | tuple):
        return parse_list(items)
    if isinstance(items, list | tuple) and len(items) == 2:
        return as_text(items[0]), as_text(items[1])
    raise DataError(
        f"texts: task={task} takes {_FORM[task]}; row {row + 1} is a {type(value).__name__} "
        f"({str(items)[:40]!r})."
    )


def _labels(labels: Any, count: int, task: Task) -> pd.DataFrame:
    if labels is None:
        return pd.DataFrame(index=range(count))
    if task == "tokens":
        return pd.DataFrame({"label": pd.Series([parse_list(tags) for tags in labels], dtype=object)})
    return label_table(labels)
