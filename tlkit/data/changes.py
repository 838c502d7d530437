"""Files that every epoch reads again: they have to be what they were when the run began."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.data.content import fingerprint, watched
from tlkit.data.manifest import Dataset, Examples
from tlkit.data.rows import list_some
from tlkit.errors import DataError


def checked_reader(
    read: Callable[[tf.Tensor], tf.Tensor], marks: npt.NDArray[np.int64]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """`read`, from indices (batch,) to contents, strings (batch,) or (batch, 2), that fails where a content
    has changed.

    `marks` are the fingerprints of all contents as they should be, int64 (n,) or (n, 2).
    """
    expected = tf.constant(marks)

    def read_checked(indices: tf.Tensor) -> tf.Tensor:
        raw = read(indices)
        same = tf.reduce_all(tf.equal(fingerprint(raw), tf.gather(expected, indices)))
        with tf.control_dependencies([tf.debugging.Assert(same, ["A file has changed since it was read."])]):
            return tf.identity(raw)

    return read_checked


@contextmanager
def changed_files_told(dataset: Dataset) -> Iterator[None]:
    """Inside, what TensorFlow raises over files that are gone or have changed becomes a DataError that names
    them. Any other of its errors stays as it is."""
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.ResourceExhaustedError,
    ):
        raise  # another worker is gone, or memory: to read all files would take long, and tell nothing
    except tf.errors.OpError:
        changed = _find_changed(dataset)
        if not changed:
            raise
        raise DataError(
            f"{len(changed):,} of the files that each epoch reads are gone, or have changed since the run "
            f"began: {list_some(changed)}. Put them back as they were."
        ) from None


def _find_changed(dataset: Dataset) -> list[str]:
    """The names of the examples that are not held in memory and are not what the manifest says any more; each
    with the reason."""
    parts = [examples for examples in dataset.splits.values() if examples.samples is None]
    wanted = [(examples, number) for examples in parts for number in range(len(examples))]
    if not wanted:
        return []
    table = dataset.manifest.table.set_index("id")

    def look_at(example: tuple[Examples, int]) -> str | None:
        examples, number = example
        row = table.loc[examples.ids[number]]
        try:
            raw = examples.read(number)
        except OSError as error:
            return f"{row['path']} ({error.strerror})"
        return None if hashlib.sha256(raw).hexdigest() == row["hash"] else f"{row['path']} (changed)"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked_at = watched(pool.map(look_at, wanted), len(wanted), "Looking for files that changed")
        return [found for found in looked_at if found is not None]
