"""Records in TFRecord files, each read when it is needed, wherever it lies."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError

HEADER, FOOTER = 12, 4  # bytes around each record: its length, and two checksums
BETWEEN = b"\x1f"  # the two texts of a pair, where they are one


@dataclass(frozen=True, eq=False)
class Records:
    """Where some records are; selecting among them reads nothing.

    Attributes:
        files: Paths of the files, uncompressed; all splits share them.
        file_of: Which of the files holds a record, int32 (n,).
        offsets: Where in it the record begins, in bytes, int64 (n,).
        lengths: How many bytes it has, int64 (n,).
        features: The feature of each `tf.train.Example` whose bytes are its content, or both of a pair.
    """

    files: tuple[str, ...]
    file_of: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    features: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, rows: Any) -> Records:
        """Several of them, in this order."""
        return replace(
            self, file_of=self.file_of[rows], offsets=self.offsets[rows], lengths=self.lengths[rows]
        )

    def read(self, number: int) -> bytes:
        """The content of one record, of a pair both texts. Raises what `parts` raises."""
        return BETWEEN.join(self.parts(number))

    def parts(self, number: int) -> tuple[bytes, ...]:
        """What each of the features holds. Raises OSError where it cannot be read, or is not there any
        more."""
        path = self.files[self.file_of[number]]
        with open(path, "rb") as file:  # noqa: PTH123  as fast as it goes: this is called for each record
            file.seek(int(self.offsets[number]) + HEADER)
            raw = file.read(int(self.lengths[number]))
        try:
            found = tf.train.Example.FromString(raw).features.feature
            return tuple(found[name].bytes_list.value[0] for name in self.features)
        except (DecodeError, IndexError):
            raise OSError(errno.EIO, "the file has changed since its records were counted", path) from None

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """From indices (batch,) to contents in the graph, strings (batch,), or (batch, 2) of pairs. Checksums
        are checked."""
        files = tf.constant(self.files)
        wanted = {name: tf.io.FixedLenFeature((), tf.string) for name in self.features}
        file_of, offsets = tf.constant(self.file_of), tf.constant(self.offsets)

        def read(indices: tf.Tensor) -> tf.Tensor:
            places = tf.gather(files, tf.gather(file_of, indices)), tf.gather(offsets, indices)
            raw = tf.map_fn(_record_at, places, fn_output_signature=tf.TensorSpec((), tf.string))
            found = tf.io.parse_example(raw, wanted)
            contents = [found[name] for name in self.features]
            return contents[0] if len(contents) == 1 else tf.stack(contents, axis=1)

        return read


def _record_at(place: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """The record of the file `place[0]` at the byte `place[1]`.

    `tf.data.TFRecordDataset` has no argument for where to begin; this is the operation that it is made of.
    Without a buffer it seeks, and reads no more than the record (TensorFlow 2.21).
    `FixedLengthRecordDataset` would read everything before it.
    """
    path, offset = place
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path,
        compression_type=tf.constant(""),
        buffer_size=tf.constant(0, tf.int64),
        byte_offsets=offset,
    )
    records = tf.data.experimental.from_variant(variant, tf.TensorSpec((), tf.string))
    return records.take(1).get_single_element()
