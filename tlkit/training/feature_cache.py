"""Features at the boundary: what frozen layers give, computed once for each example and read ever after."""

from __future__ import annotations

import functools
import hashlib
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.data import Examples
from tlkit.data.batches import padded_lengths
from tlkit.data.pipeline import InputsOf, hash_ids, pipeline_options, sample_reader
from tlkit.errors import TrainingError
from tlkit.features import ALIGNMENT, Column, ColumnSpec, FeatureTable
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing
from tlkit.preprocessing.views import Views
from tlkit.progress import track
from tlkit.training.boundary import FEATURES, Parts

BATCH_SIZE = 32
_STORED = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}
_WORDS, _TOKENS = "words", "tokens"
_PROBE = {_TOKENS: 7, _WORDS: 5}  # lengths by which it is told what an axis counts


class Overflow(TrainingError):
    """A value does not fit into the storage type."""


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one boundary, of any examples.

    Attributes:
        parts: The model, divided at the boundary.
        table: Where they are stored.
        storage: `float32`, `float16` or `bfloat16`.
        preprocessing: Gives what the lower part takes.
        hashes: The content's hash of each example, by id.
    """

    parts: Parts
    table: FeatureTable
    storage: str
    preprocessing: ImagePreprocessing | TextPreprocessing
    hashes: Mapping[str, str]

    def rows(self, examples: Examples, views: Views) -> npt.NDArray[np.int64]:
        """Rows of the table, (n, views, rows of an example); −1 where there is none."""
        found = self.table.rows(self._ids(examples, views))
        return found.reshape(len(examples), len(views), self._rows_each)

    def count_missing(self, examples: Examples, views: Views) -> int:
        """Examples × views that have to be computed."""
        return int((self.rows(examples, views) < 0).any(axis=2).sum())

    def count_bytes(self, examples: Examples, views: Views) -> int:
        """Bytes of all rows of these examples."""
        lengths = _lengths(examples, self.preprocessing)
        each = sum(
            spec.bytes_each * (int(lengths[spec.axis].sum()) if spec.axis else len(examples))
            for spec in self.table.specs
        )
        return each * len(views) * self._rows_each

    def fill(self, examples: Examples, views: Views, name: str) -> None:
        """Compute what is missing, with a progress bar that says `name`.

        Raises:
            Overflow: A value does not fit into the storage type.
            StorageError: The disk is full.
        """
        missing = np.flatnonzero((self.rows(examples, views) < 0).any(axis=(1, 2)))
        if not len(missing):
            return
        chosen = examples.take(missing)
        chosen = chosen.take(chosen.by_length)
        flat = np.empty(len(chosen) * len(views) * self._rows_each, dtype=object)
        flat[:] = self._ids(chosen, views)
        ids = flat.reshape(len(chosen), len(views), self._rows_each)
        lengths = _lengths(chosen, self.preprocessing)
        steps = -(-len(chosen) // BATCH_SIZE)
        with self.table.filling():
            for number, batch in enumerate(track(self._inputs(chosen, views), f"Features of {name}", steps)):
                part = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
                of_rows = {axis: np.repeat(sizes[part], self._rows_each) for axis, sizes in lengths.items()}
                for view, inputs in enumerate(batch):
                    self._add(list(ids[part, view].reshape(-1)), self._compute(inputs), of_rows)

    def reader(self, examples: Examples, views: Views) -> InputsOf:
        """The features of filled examples, as the inputs of a pipeline."""
        rows = tf.constant(self.rows(examples, views))
        columns = [(column, as_tensor(column.values)) for column in self.table.columns()]
        shapes = {name: tensor.shape for name, tensor in self.parts.lower.output.items()}
        dtypes = {name: tensor.dtype for name, tensor in self.parts.lower.output.items()}

        def read(indices: tf.Tensor, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
            chosen = tf.gather(tf.gather(rows, indices), views.choose(seeds), batch_dims=1)
            flat = tf.reshape(chosen, [-1])
            values = {column.spec.name: _take(column, tensor, flat) for column, tensor in columns}
            return {
                name: tf.ensure_shape(_restored(value, dtypes[name]), shapes[name])
                for name, value in values.items()
            }

        return read

    def measure(self, examples: Examples, views: Views) -> float:
        """Seconds that the frozen layers take for an example, tracing and preprocessing left out."""
        compute = self._compute
        (inputs, *_) = next(iter(self._inputs(examples.take(examples.by_length[-BATCH_SIZE:]), views)))
        compute(inputs)
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            compute(inputs)
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds) / min(BATCH_SIZE, len(examples))

    @property
    def _rows_each(self) -> int:
        """Two for a pair of texts that is compared, one for anything else."""
        return (
            2
            if isinstance(self.preprocessing, TextPreprocessing) and self.preprocessing.task == "embed"
            else 1
        )

    def _ids(self, examples: Examples, views: Views) -> list[bytes]:
        own = _own_hashes(examples, self.hashes)
        return [
            hashlib.blake2b(f"{content} {view} {row}".encode(), digest_size=16).digest()
            for content, name in zip(own, examples.ids, strict=True)
            for view in (f"{view} {name}" if views.by_id else view for view in views.names)
            for row in range(self._rows_each)
        ]

    def _inputs(self, examples: Examples, views: Views) -> tf.data.Dataset:
        """In the order of the examples: for each batch the inputs of each view."""
        samples_of, hashes = sample_reader(examples, self.preprocessing), hash_ids(examples.ids)

        def make(indices: tf.Tensor) -> tuple[Any, ...]:
            samples = samples_of(indices)
            versions = [views.make(samples, view, tf.gather(hashes, indices)) for view in range(len(views))]
            return tuple(self.preprocessing.encode(version) for version in versions)

        batches = tf.data.Dataset.range(len(examples)).batch(BATCH_SIZE)
        batches = batches.map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return batches.prefetch(2).with_options(pipeline_options())

    @functools.cached_property
    def _compute(self) -> Any:
        """From the model's inputs to what is stored; traced once."""
        lower = self.parts.lower

        def compute(inputs: Any) -> dict[str, tf.Tensor]:
            return {
                name: _stored(tensor, self.storage) for name, tensor in lower(inputs, training=False).items()
            }

        given = keras.tree.map_structure(
            lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), lower._inputs_struct
        )
        # A model of one input that is no dict has it in a list, and is called with the tensor itself.
        given = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
        return tf.function(compute, input_signature=[given])

    def _add(
        self, ids: list[bytes], outputs: Mapping[str, tf.Tensor], lengths: dict[str, npt.NDArray[Any]]
    ) -> None:
        new, seen = [], set()
        for place, (each, row) in enumerate(zip(ids, self.table.rows(ids), strict=True)):
            if row < 0 and each not in seen:  # the same content may be there twice
                new.append(place)
                seen.add(each)
        arrays = []
        for spec in self.table.specs:
            values = outputs[spec.name].numpy()
            if values.dtype == np.float16 and not np.isfinite(values).all():
                raise Overflow(f"The activations do not fit into {self.storage}. Use cache.storage=bfloat16.")
            values = values[new]
            if spec.axis:
                values = values[np.arange(values.shape[1]) < lengths[spec.axis][new][:, None]]
            arrays.append(values)
        self.table.add(
            [ids[place] for place in new], arrays, {axis: sizes[new] for axis, sizes in lengths.items()}
        )


class ReleaseMemory(keras.callbacks.Callback):
    """Give back, now and then, the memory that mapped files take while they are read."""

    def __init__(self, table: FeatureTable, every: int = 100) -> None:
        super().__init__()
        self.table = table
        self.every = every

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch % self.every == self.every - 1:
            self.table.release()


def column_specs(parts: Parts, storage: str) -> tuple[ColumnSpec, ...]:
    """The columns that a boundary needs."""
    lower = parts.lower
    given = keras.tree.map_structure(_probe, lower._inputs_struct)
    given = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    outputs = lower.compute_output_spec(given)
    return tuple(_column_spec(name, tensor, outputs[name], storage) for name, tensor in lower.output.items())


def as_tensor(values: npt.NDArray[Any]) -> tf.Tensor:
    """An array as a tensor over the same memory, which a mapped file keeps on the disk."""
    with tf.device("CPU:0"):
        if not values.size or values.ctypes.data % ALIGNMENT:
            return tf.constant(values)
        return tf.experimental.dlpack.from_dlpack(values.__dlpack__())


def _probe(tensor: keras.KerasTensor) -> keras.KerasTensor:
    size = _PROBE[_WORDS if tensor.name == "word_starts" else _TOKENS]
    shape = (
        1,
        *(size if side is None and place == 0 else side for place, side in enumerate(tensor.shape[1:])),
    )
    return keras.KerasTensor(shape, tensor.dtype, name=tensor.name)


def _column_spec(name: str, tensor: Any, probed: Any, storage: str) -> ColumnSpec:
    is_float = name.startswith(FEATURES) and "float" in keras.backend.standardize_dtype(tensor.dtype)
    dtype = _STORED[storage] if is_float else keras.backend.standardize_dtype(tensor.dtype)
    axis = None
    if len(tensor.shape) > 1 and tensor.shape[1] is None:
        axis = next(axis for axis, size in _PROBE.items() if size == probed.shape[1])
    shape = tuple(tensor.shape[2:] if axis else tensor.shape[1:])
    return ColumnSpec(name, dtype, shape, axis)


def _lengths(
    examples: Examples, preprocessing: ImagePreprocessing | TextPreprocessing
) -> dict[str, npt.NDArray[np.int64]]:
    """How many tokens and words each example has where it is padded no more than it has to be."""
    padded = padded_lengths(examples, preprocessing)
    lengths = {} if padded is None else {_TOKENS: padded}
    if examples.targets.dtype == object:
        lengths[_WORDS] = np.array([len(tags) for tags in examples.targets], np.int64)
    return lengths


def _own_hashes(examples: Examples, hashes: Mapping[str, str]) -> list[str]:
    """What tells the content of an example from that of others: of texts as they are after cleaning."""
    if examples.samples is not None and examples.samples.dtype == object:
        return [repr(sample if isinstance(sample, str) else list(sample)) for sample in examples.samples]
    return [hashes[str(name)] for name in examples.ids]


def _stored(tensor: tf.Tensor, storage: str) -> tf.Tensor:
    if not tensor.dtype.is_floating:
        return tensor
    stored = tf.cast(tensor, storage)
    return tf.bitcast(stored, tf.uint16) if storage == "bfloat16" else stored


def _restored(values: tf.Tensor, dtype: Any) -> tf.Tensor:
    wanted = tf.as_dtype(keras.backend.standardize_dtype(dtype))
    if wanted.is_floating and values.dtype == tf.uint16:
        values = tf.bitcast(values, tf.bfloat16)
    return tf.cast(values, wanted)


def _take(column: Column, values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """The values of some rows; those with an axis are padded to the longest of them."""
    if column.starts is None or column.lengths is None:
        return tf.gather(values, rows)
    starts, lengths = (
        tf.gather(tf.constant(column.starts), rows),
        tf.gather(tf.constant(column.lengths), rows),
    )
    places = tf.range(tf.reduce_max(lengths))
    is_there = places[None] < lengths[:, None]
    at = starts[:, None] + tf.cast(tf.where(is_there, places[None], 0), tf.int64)
    taken = tf.gather(values, at)
    padding = tf.constant(-1 if column.spec.name == "word_starts" else 0, values.dtype)
    return tf.where(
        tf.reshape(is_there, tf.concat([tf.shape(at), [1] * len(column.spec.shape)], 0)), taken, padding
    )
