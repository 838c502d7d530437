"""Examples in memory: arrays with labels, and `tf.data.Dataset`s of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf

from tlkit.config import DataConfig
from tlkit.data.record_features import DEFAULTS, LABELS, PICTURES
from tlkit.data.rows import Rows, list_some
from tlkit.errors import DataError

_GIB = 2**30


def read_arrays(source: Sequence[Any], spec: DataConfig) -> Rows:
    """The rows of `(inputs, labels)` or `(inputs, labels, weights)`.

    `inputs` is an array (n, H, W) or (n, H, W, channels), or a sequence of such pictures, or of paths.
    `labels` is (n,), or (n, k) for `multilabel` and for several numbers in `regress`; `weights` is (n,).

    Raises DataError for another form, for lengths that differ, and for a missing file.
    """
    if len(source) not in (2, 3):
        raise DataError(
            f"Expected (inputs, labels) or (inputs, labels, weights), received {len(source)} items."
        )
    inputs, labels = as_sequence(source[0], "inputs"), as_sequence(source[1], "labels")
    weights = as_weights(source[2]) if len(source) == 3 and source[2] is not None else None
    lengths = [len(part) for part in (inputs, labels, weights) if part is not None]
    if len(set(lengths)) != 1:
        raise DataError(
            f"inputs, labels and weights must be of one length, received {' and '.join(map(str, lengths))}."
        )
    if not lengths[0]:
        raise DataError("(inputs, labels) holds no examples.")
    table = label_table(labels)
    if isinstance(inputs[0], str | os.PathLike):
        paths = [os.path.abspath(os.fspath(path)) for path in inputs]
        missing = [f"row {row + 1}: {path}" for row, path in enumerate(paths) if not Path(path).exists()]
        if missing:
            raise DataError(
                f"inputs: {len(missing)} of {len(paths)} files are missing ({list_some(missing)})."
            )
        return Rows(where="(inputs, labels)", name="arrays", labels=table, paths=paths, weights=weights)
    pictures = [np.asarray(picture) for picture in inputs]
    return Rows(where="(inputs, labels)", name="arrays", labels=table, pictures=pictures, weights=weights)


def read_tf_dataset(dataset: tf.data.Dataset, spec: DataConfig) -> Rows:
    """The rows of a dataset of (picture, label) or (picture, label, weight), batched or not, or of features
    by their names, as TFDS has them.

    Raises DataError where it does not end, gives something else, or is larger than `spec.memory`.
    """
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise DataError("The tf.data.Dataset never ends (repeat?): take a number of examples with .take(n).")
    dataset = as_tuples(dataset, (spec.columns.path, *PICTURES), spec)
    element = dataset.element_spec
    if not isinstance(element, tuple) or len(element) not in (2, 3) or not hasattr(element[0], "shape"):
        raise DataError(f"The tf.data.Dataset must give (picture, label), received {element}.")
    parts: list[list[Any]] = [[] for _ in element]
    size = 0
    for values in dataset.as_numpy_iterator():
        is_batch = np.ndim(values[0]) == 4 or (
            np.ndim(values[0]) == 3 and np.ndim(values[1]) > 0 and _is_grey_batch(values)
        )
        for part, value in zip(parts, values, strict=True):
            part.extend(value if is_batch else [value])
        size += values[0].nbytes
        if size > spec.memory * _GIB:
            raise DataError(
                f"The tf.data.Dataset exceeds data.memory = {spec.memory:g} GiB after {len(parts[0]):,} "
                "examples: raise data.memory, or write the pictures to files (of TFDS: data='tfds:NAME')."
            )
    if not parts[0]:
        raise DataError("The tf.data.Dataset holds no examples.")
    rows = read_arrays(parts, spec)
    return Rows(
        where="tf.data.Dataset",
        name="dataset",
        labels=rows.labels,
        pictures=rows.pictures,
        weights=rows.weights,
    )


def as_tuples(dataset: tf.data.Dataset, contents: Sequence[str], spec: DataConfig) -> tf.data.Dataset:
    """A dataset of features by their names as one of (content, label) or (content, label, weight); any other
    as it is. The content is the first of `contents` that is there.

    Raises DataError where a feature is missing.
    """
    element = dataset.element_spec
    if not isinstance(element, Mapping):
        return dataset
    labels = [spec.columns.label] if isinstance(spec.columns.label, str) else list(spec.columns.label)
    usual = LABELS if labels == [DEFAULTS.label] else ()
    weights = [] if spec.columns.weight is None else [(spec.columns.weight,)]
    chosen = []
    for names in (contents, (*labels, *usual), *weights):
        found = [name for name in names if name in element]
        if not found:
            raise DataError(
                f"The tf.data.Dataset has no feature {names[0]!r}: name it in data.columns. "
                f"Its features: {list_some(list(element), 12)}."
            )
        chosen.append(found[0])
    plain = tf.autograph.experimental.do_not_convert
    return dataset.map(plain(lambda example: tuple(example[name] for name in chosen)))


def label_table(labels: Any) -> pd.DataFrame:
    """Labels (n,) as one column, (n, k) as columns "0" … or, of a DataFrame, its own names."""
    if isinstance(labels, pd.DataFrame):
        return labels.reset_index(drop=True).rename(columns=str)
    values = labels.tolist() if isinstance(labels, np.ndarray | pd.Series) else list(labels)
    values = [value.tolist() if isinstance(value, np.ndarray | np.generic) else value for value in values]
    widths = {len(value) if isinstance(value, list | tuple) else None for value in values}
    if widths == {None}:
        return pd.DataFrame({"label": pd.Series(values, dtype=object)})
    if len(widths) != 1 or 0 in widths:
        raise DataError(
            "labels: rows differ in length. Expected one label per row, or the same number of columns."
        )
    columns = [str(number) for number in range(len(values[0]))]
    return pd.DataFrame([list(value) for value in values], columns=columns, dtype=object)


def _is_grey_batch(values: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether a rank of 3 means (n, H, W), not (H, W, channels): then there are n labels."""
    return values[0].shape[-1] not in (1, 3, 4) and len(values[0]) == len(values[1])


def as_sequence(values: Any, what: str) -> Any:
    if isinstance(values, tf.Tensor):
        values = values.numpy()
    if (
        isinstance(values, str | bytes | Mapping)
        or not hasattr(values, "__len__")
        or not hasattr(values, "__getitem__")
    ):
        raise DataError(f"{what} must be an array or a list, received {type(values).__name__}.")
    if isinstance(values, np.ndarray) and values.ndim == 0:
        raise DataError(f"{what} must have one row per example, received a single value.")
    return values.tolist() if isinstance(values, pd.Series) else values


def as_weights(values: Any) -> npt.NDArray[np.float32]:
    try:
        weights = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise DataError("weights must be numbers, one per example.") from None
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError(
            f"weights must be finite, at least 0 and of shape (n,), received shape {weights.shape}."
        )
    return weights
