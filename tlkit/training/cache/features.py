"""Features at the boundary: what frozen layers give, computed once for each example and read ever after."""

from __future__ import annotations

import functools
import hashlib
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.data import Examples
from tlkit.data.pipeline import InputsOf, hash_ids, pipeline_options, sample_reader
from tlkit.data.tensors import as_tensor
from tlkit.errors import TrainingError
from tlkit.features import FeatureTable
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing
from tlkit.preprocessing.views import Views, plain_view
from tlkit.progress import track
from tlkit.training.cache.boundary import Parts
from tlkit.training.cache.columns import TOKENS, WORDS, from_storage, pad_beyond, take_rows, to_storage

BATCH_SIZE = 32
RELEASE_EVERY = 5  # batches; whatever is touched maps 64 kB around it


class Overflow(TrainingError):
    """A value does not fit into the storage type."""


@dataclass(eq=False)
class Features:
    """The features of one boundary, of any examples.

    Attributes:
        parts: The model, divided at the boundary.
        table: Where they are stored.
        storage: `float32`, `float16` or `bfloat16`.
        preprocessing: Gives what the lower part takes.
        hashes: The content's hash of each example, by id.
        seconds: What the frozen layers take for an example, from its sample on; None until it is measured.
    """

    parts: Parts
    table: FeatureTable
    storage: str
    preprocessing: ImagePreprocessing | TextPreprocessing
    hashes: Mapping[str, str]
    seconds: float | None = field(default=None, init=False)

    def rows(self, examples: Examples, views: Views) -> npt.NDArray[np.int64]:
        """Rows of the table, (n, views, rows of an example); −1 where there is none."""
        found = self.table.rows(self._ids(examples, views))
        return found.reshape(len(examples), len(views), self._rows_each)

    def count_missing(self, examples: Examples, views: Views) -> int:
        """Examples × views that have to be computed."""
        return int((self.rows(examples, views) < 0).any(axis=2).sum())

    def count_values(self, examples: Examples, views: Views) -> list[int]:
        """Values of all rows of these examples, by column."""
        lengths, each = _lengths(examples, self.preprocessing), len(views) * self._rows_each
        return [
            each * math.prod(spec.shape) * (int(lengths[spec.axis].sum()) if spec.axis else len(examples))
            for spec in self.table.specs
        ]

    def count_bytes(self, examples: Examples, views: Views) -> int:
        """Bytes of all rows of these examples."""
        counts = self.count_values(examples, views)
        sizes = [np.dtype(spec.dtype).itemsize for spec in self.table.specs]
        return sum(count * size for count, size in zip(counts, sizes, strict=True))

    def fill(self, examples: Examples, views: Views, name: str, below: Features | None = None) -> None:
        """Compute what is missing, with a progress bar that says `name`.

        Args:
            examples: Whose features.
            views: Which versions of them.
            name: For people.
            below: The features from which `parts.between` computes these, as far as they are there.

        Raises:
            Overflow: A value does not fit into the storage type.
            StorageError: The disk is full.
        """
        if not self.count_missing(examples, views):
            return
        with self.table.filling():
            # Another process may have stored some, or all, while this one waited.
            missing = np.flatnonzero((self.rows(examples, views) < 0).any(axis=(1, 2)))
            if len(missing):
                self._fill(examples.take(missing), views, name, below)

    def _fill(self, chosen: Examples, views: Views, name: str, below: Features | None) -> None:
        chosen = chosen.take(chosen.by_length)
        flat = np.empty(len(chosen) * len(views) * self._rows_each, dtype=object)
        flat[:] = self._ids(chosen, views)
        ids = flat.reshape(len(chosen), len(views), self._rows_each)
        lengths = _lengths(chosen, self.preprocessing)
        steps = -(-len(chosen) // BATCH_SIZE)
        compute, batches = self._source(chosen, views, below)
        for number, batch in enumerate(track(batches, f"Features of {name}", steps)):
            part = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
            of_rows = {axis: np.repeat(sizes[part], self._rows_each) for axis, sizes in lengths.items()}
            for view, inputs in enumerate(batch):
                self._add(list(ids[part, view].reshape(-1)), compute(inputs), of_rows)
            if number % RELEASE_EVERY == RELEASE_EVERY - 1:
                chosen.release()
        chosen.release()

    def reader(self, examples: Examples, views: Views) -> InputsOf:
        """The features of filled examples, as the inputs of a pipeline."""
        rows, gather = tf.constant(self.rows(examples, views)), self._gatherer()

        def read(indices: tf.Tensor, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
            return gather(tf.gather(tf.gather(rows, indices), views.choose(seeds), batch_dims=1))

        return read

    def measure(self, examples: Examples, views: Views, below: Features | None = None) -> float:
        """Seconds that an example takes to be computed, from `below` where that is given.

        Tracing and preprocessing are left out. Sets `seconds`, too.
        """
        chosen = examples.take(examples.by_length[-BATCH_SIZE:])
        compute, batches = self._source(chosen, views, below)
        (inputs, *_) = next(iter(batches))
        compute(inputs)
        times = []
        for _ in range(2):
            started = time.perf_counter()
            compute(inputs)
            times.append(time.perf_counter() - started)
        each = statistics.median(times) / len(chosen)
        self.seconds = each
        if compute is not self._compute and below is not None:
            self.seconds += below.measure(examples, views) if below.seconds is None else below.seconds
        return each

    def reads_padding(self, examples: Examples) -> bool:
        """Whether a text gets another answer where its padding is empty, as that of stored features is.

        Asked of the shortest text, beside the longest.
        """
        chosen = examples.take(examples.by_length[[0, -1]])
        (inputs,) = self._make_raw(chosen, plain_view())(tf.range(len(chosen), dtype=tf.int64))
        lengths = _lengths(chosen, self.preprocessing)
        of_rows = {axis: np.repeat(sizes, self._rows_each) for axis, sizes in lengths.items()}
        computed = self.parts.lower(inputs, training=False)
        stored = {
            spec.name: pad_beyond(spec, computed[spec.name], of_rows[spec.axis])
            for spec in self.table.specs
            if spec.axis
        }
        wanted, found = (self.parts.upper(each, training=False) for each in (computed, computed | stored))
        return not np.allclose(found, wanted, rtol=1e-3, atol=1e-5, equal_nan=True)

    @property
    def _rows_each(self) -> int:
        """Two for a pair of texts that is compared, one for anything else."""
        return (
            2
            if isinstance(self.preprocessing, TextPreprocessing) and self.preprocessing.task == "embed"
            else 1
        )

    def _ids(self, examples: Examples, views: Views) -> list[bytes]:
        own = self._own_hashes(examples)
        return [
            hashlib.blake2b(f"{content} {view} {row}".encode(), digest_size=16).digest()
            for content, name in zip(own, examples.ids, strict=True)
            for view in (f"{view} {name}" if views.by_id else view for view in views.names)
            for row in range(self._rows_each)
        ]

    def _own_hashes(self, examples: Examples) -> list[str]:
        """What tells the content of an example from that of others: of texts as they are after cleaning."""
        if isinstance(examples.samples, np.ndarray) and examples.samples.dtype == object:
            return [repr(sample if isinstance(sample, str) else list(sample)) for sample in examples.samples]
        own = [self.hashes[str(name)] for name in examples.ids]
        if isinstance(
            self.preprocessing, TextPreprocessing
        ):  # its normalisation is not in the boundary's key
            return [f"{each} {self.preprocessing.normalization!r}" for each in own]
        return own

    def _source(
        self, examples: Examples, views: Views, below: Features | None
    ) -> tuple[Callable[[Any], dict[str, tf.Tensor]], tf.data.Dataset]:
        """What computes features, and its inputs: in the order of the examples, for each batch those of each
        view."""
        numbers = tf.data.Dataset.range(len(examples)).batch(BATCH_SIZE)
        is_there = below is not None and not below.count_missing(examples, views)
        if below is not None and self.parts.between is not None and is_there:
            compute, make = self._compute_between, below._make_stored(examples, views)
        else:
            compute, make = self._compute, self._make_raw(examples, views)
        make = tf.autograph.experimental.do_not_convert(make)
        batches = numbers.map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return compute, batches.prefetch(2).with_options(pipeline_options())

    def _make_raw(self, examples: Examples, views: Views) -> Callable[[tf.Tensor], tuple[Any, ...]]:
        samples_of, hashes = sample_reader(examples, self.preprocessing), hash_ids(examples.ids)

        def make(indices: tf.Tensor) -> tuple[Any, ...]:
            samples = samples_of(indices)
            versions = [views.make(samples, view, tf.gather(hashes, indices)) for view in range(len(views))]
            return tuple(self.preprocessing.encode(version) for version in versions)

        return make

    def _make_stored(self, examples: Examples, views: Views) -> Callable[[tf.Tensor], tuple[Any, ...]]:
        rows, gather = tf.constant(self.rows(examples, views)), self._gatherer()

        def make(indices: tf.Tensor) -> tuple[Any, ...]:
            chosen = tf.gather(rows, indices)
            return tuple(gather(chosen[:, view]) for view in range(len(views)))

        return make

    def _gatherer(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """From rows of the table to the tensors of the boundary."""
        columns = [(column, as_tensor(column.values)) for column in self.table.columns()]
        shapes = {name: tensor.shape for name, tensor in self.parts.lower.output.items()}
        dtypes = {name: tensor.dtype for name, tensor in self.parts.lower.output.items()}
        buckets = self.preprocessing.buckets if isinstance(self.preprocessing, TextPreprocessing) else ()

        def gather(rows: tf.Tensor) -> dict[str, tf.Tensor]:
            flat = tf.reshape(rows, [-1])
            values = {
                column.spec.name: take_rows(column, tensor, flat, buckets) for column, tensor in columns
            }
            return {
                name: tf.ensure_shape(from_storage(value, dtypes[name]), shapes[name])
                for name, value in values.items()
            }

        return gather

    @functools.cached_property
    def _compute(self) -> Callable[[Any], dict[str, tf.Tensor]]:
        """From the model's inputs to what is stored; traced once."""
        return _traced(self.parts.lower, self.storage)

    @functools.cached_property
    def _compute_between(self) -> Callable[[Any], dict[str, tf.Tensor]]:
        """From the boundary below to what is stored; traced once."""
        return _traced(self.parts.between, self.storage)

    def _add(
        self, ids: list[bytes], outputs: Mapping[str, tf.Tensor], lengths: dict[str, npt.NDArray[Any]]
    ) -> None:
        new, seen = [], set()
        for place, (each, row) in enumerate(zip(ids, self.table.rows(ids), strict=True)):
            if row < 0 and each not in seen:  # the same content may be there twice
                new.append(place)
                seen.add(each)
        arrays, sizes = [], {}
        for spec in self.table.specs:
            values = outputs[spec.name].numpy()
            if values.dtype == np.float16 and not np.isfinite(values).all():
                raise Overflow(f"The activations do not fit into {self.storage}. Use cache.storage=bfloat16.")
            values = values[new]
            if spec.axis:
                # Of a text that is cut by its characters the model sees less than was counted.
                sizes[spec.axis] = np.minimum(lengths[spec.axis][new], values.shape[1])
                values = values[np.arange(values.shape[1]) < sizes[spec.axis][:, None]]
            arrays.append(values)
        self.table.add([ids[place] for place in new], arrays, sizes)


class ReleaseMemory(keras.callbacks.Callback):
    """Give back, now and then, the memory that mapped files take while they are read: call `release`."""

    def __init__(self, release: Callable[[], None], every: int = RELEASE_EVERY) -> None:
        super().__init__()
        self.release = release
        self.every = every

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch % self.every == self.every - 1:
            self.release()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.on_train_batch_end(batch)


def _lengths(
    examples: Examples, preprocessing: ImagePreprocessing | TextPreprocessing
) -> dict[str, npt.NDArray[np.int64]]:
    """How many tokens and words of each example are stored: no padding, where the model has a mask for it."""
    lengths = {}
    if isinstance(preprocessing, TextPreprocessing) and examples.lengths is not None:
        own = examples.lengths.astype(np.int64)
        lengths[TOKENS] = (
            own if preprocessing.input.mask else np.full_like(own, preprocessing.sequence_length)
        )
    if examples.targets.dtype == object:
        lengths[WORDS] = np.array([len(tags) for tags in examples.targets], np.int64)
    return lengths


def _traced(model: Any, storage: str) -> Callable[[Any], dict[str, tf.Tensor]]:
    def compute(inputs: Any) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        return {name: to_storage(tensor, storage) for name, tensor in outputs.items()}

    given = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), model._inputs_struct
    )
    # A model of one input that is no dict has it in a list, and is called with the tensor itself.
    given = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    traced: Callable[[Any], dict[str, tf.Tensor]] = tf.function(compute, input_signature=[given])
    return traced
