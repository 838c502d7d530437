"""Examples as batches of model inputs, with no random state carried from one batch to the next."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.data.manifest import Examples
from tlkit.preprocessing import ImagePreprocessing


def make_pipeline(
    examples: Examples,
    preprocessing: ImagePreprocessing,
    *,
    global_batch_size: int,
    training: bool,
    seed: int = 0,
    stage: int = 0,
    epochs: int = 1,
    first_epoch: int = 0,
    sample_weights: npt.NDArray[Any] | None = None,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Batches `(inputs, targets)`, or `(inputs, targets, weights)` where there are weights.

    inputs: float32 (batch, H, W, 3); targets: as in `Examples`; weights: float32 (batch,), the examples' own
    times `sample_weights`. The last batch of an epoch may be smaller.

    With `training` it spans `epochs` epochs from `first_epoch` on: each goes through all examples once, in an
    order that is a function of (seed, stage, epoch), each picture augmented by (seed, epoch, id). Call `fit`
    with `steps_per_epoch=count_steps(...)`. Without, it is one epoch in the order of the examples, as they
    are. `replicas` is how many share each batch: where the last one would leave some of them without an
    example (BatchNorm then learns NaN), it is joined to the one before.
    """
    count = len(examples)
    steps = count_steps(count, global_batch_size, replicas)
    pictures = _picture_reader(examples, preprocessing)
    targets = tf.constant(examples.targets)
    weights = _weights(examples, sample_weights)
    hashes = tf.constant(_hash_ids(examples.ids))

    def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = order_of_epoch(count, seed, stage, epoch) if training else tf.range(count, dtype=tf.int64)

        def cut(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            stop = tf.where(step == steps - 1, tf.constant(count, tf.int64), (step + 1) * global_batch_size)
            return order[step * global_batch_size : stop], epoch

        return tf.data.Dataset.range(steps).map(cut)

    def make_batch(indices: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        samples = pictures(indices)
        if training:
            # Seed and epoch are below 2**31, so no two pairs share a number.
            draw = tf.fill(tf.shape(indices), tf.constant(seed, tf.int64) * 2**31 + epoch)
            samples = preprocessing.augment(samples, tf.stack([draw, tf.gather(hashes, indices)], axis=1))
        batch = (preprocessing.encode(samples), tf.gather(targets, indices))
        return batch if weights is None else (*batch, tf.gather(weights, indices))

    if not training:
        first_epoch, epochs = 0, 1
    dataset = tf.data.Dataset.range(first_epoch, first_epoch + epochs).flat_map(batches_of)
    dataset = dataset.map(make_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(epochs * steps))
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(_options())


def count_steps(count: int, global_batch_size: int, replicas: int = 1) -> int:
    """Batches in one epoch of `count` examples; see `make_pipeline` for `replicas`."""
    steps = math.ceil(count / global_batch_size)
    last = count - (steps - 1) * global_batch_size
    return steps - 1 if steps > 1 and last < replicas else steps


def order_of_epoch(count: int, seed: int, stage: int, epoch: tf.Tensor | int) -> tf.Tensor:
    """The order of the examples in an epoch, int64 (count,): a function of its arguments alone."""
    key = tf.random.experimental.stateless_fold_in(
        tf.constant([seed, stage], tf.int64), tf.cast(epoch, tf.int64)
    )
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), seed=key)


def _picture_reader(
    examples: Examples, preprocessing: ImagePreprocessing
) -> Callable[[tf.Tensor], tf.Tensor]:
    """From indices (batch,) to samples (batch, H, W, 3)."""
    shape = (None, preprocessing.image_size, preprocessing.image_size, 3)
    if examples.samples is not None:
        # A copy. Python in the pipeline (tf.numpy_function) could do without, but deadlocks now and then: an
        # iterator that is deleted waits, with the interpreter's lock, for a batch that needs that lock.
        samples = tf.constant(examples.samples)
        return lambda indices: tf.ensure_shape(tf.gather(samples, indices), shape)
    assert examples.paths is not None
    paths = tf.constant(examples.paths)

    def decode(indices: tf.Tensor) -> tf.Tensor:
        raw = tf.map_fn(tf.io.read_file, tf.gather(paths, indices), fn_output_signature=tf.string)
        return tf.ensure_shape(preprocessing.decode_batch(raw), shape)

    return decode


def _weights(examples: Examples, sample_weights: npt.NDArray[Any] | None) -> tf.Tensor | None:
    given = [part for part in (examples.weights, sample_weights) if part is not None]
    return tf.constant(np.prod(given, axis=0), tf.float32) if given else None


def _hash_ids(ids: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in ids.tolist())
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Each replica takes its part of every batch; there are no shards of files to hand out.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
