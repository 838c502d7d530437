"""Files of records that tlkit writes itself, so that each example can be read wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tlkit.errors import DataError, StorageError

_FILE_BYTES = 2**28  # after which the next file begins


def write_records(examples: Iterable[Mapping[str, Any]], folder: Path, split: str) -> None:
    """Write examples, one after the other, to `split-00000.tfrecord` and so on.

    A value is a text, bytes, a number, a list of one of these, or a mapping of values. What is nothing of
    that, and what is None, is left out.

    Raises DataError where there are none, StorageError.
    """
    records = map(serialize, examples)
    following = next(records, None)
    if following is None:
        raise DataError(f"The split {split!r} holds no examples.")
    number = 0
    while following is not None:
        size = 0
        with record_writer(folder / f"{split}-{number:05}.tfrecord") as write:
            while following is not None and size < _FILE_BYTES:
                write(following)
                size += len(following)
                following = next(records, None)
        number += 1


@contextmanager
def record_writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that adds a record to the new file `path`. Raises StorageError."""
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            yield writer.write
    except tf.errors.OpError as error:
        raise StorageError(f"Cannot write {path}: {error.message.splitlines()[0]}") from None


def serialize(example: Mapping[str, Any]) -> bytes:
    """An example as a `tf.train.Example`; a mapping in it as features `name/its name`."""
    features = {name: feature for name, value in _flat(example) if (feature := _feature(value)) is not None}
    raw: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return raw


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}/")
        else:
            yield f"{before}{name}", value


def _feature(value: Any) -> Any:
    several = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if not isinstance(several, Sequence) or isinstance(several, str | bytes):
        several = [several]
    if all(isinstance(one, str | bytes) for one in several):
        raw = [one.encode("utf-8", "replace") if isinstance(one, str) else one for one in several]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=raw))
    if all(isinstance(one, int) for one in several):  # a bool is one
        return tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, several)))
    if all(isinstance(one, int | float) for one in several):
        return tf.train.Feature(float_list=tf.train.FloatList(value=several))
    return None
