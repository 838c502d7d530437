"""Examples as batches of model inputs, with no random state carried from one batch to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.data.batches import Share, batches_of_epoch, in_turns, plan_batches, starts_in_order
from tlkit.data.changes import checked_reader
from tlkit.data.manifest import Examples
from tlkit.data.mixing import Mixing
from tlkit.data.pictures import Pictures
from tlkit.data.tensors import as_tensor
from tlkit.data.texts import text_tensor
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing

# Indices of examples, int64 (batch,), and their seeds, int64 (batch, 2) → the model's inputs.
InputsOf = Callable[[tf.Tensor, tf.Tensor], Any]

WHOLE = Share()


def make_pipeline(
    examples: Examples,
    preprocessing: ImagePreprocessing | TextPreprocessing,
    *,
    global_batch_size: int,
    training: bool,
    seed: int = 0,
    stage: int = 0,
    epochs: int = 1,
    first_epoch: int = 0,
    sample_weights: npt.NDArray[Any] | None = None,
    replicas: int = 1,
    batch_tokens: int | None = None,
    inputs_of: InputsOf | None = None,
    mixing: Mixing | None = None,
    first_step: int = 0,
    share: Share = WHOLE,
    fill_last: bool = False,
) -> tf.data.Dataset:
    """Batches `(inputs, targets)`, or `(inputs, targets, weights)` where there are weights.

    inputs: float32 (batch, H, W, 3) of pictures; of texts a dict of int32 tensors (see `TextPreprocessing`).
    targets: as in `Examples`; of `tokens` int32 (batch, words), −1 where there is no word or it was cut off;
    of `embed` one for each text, so two for each pair. weights: float32, one for each target (each row of
    `tokens`), the examples' own times `sample_weights`. The last batch of an epoch may be smaller.

    With `training` it spans `epochs` epochs from `first_epoch` on: each goes through all examples once, in
    batches that are a function of (seed, stage, epoch) (see `plan_batches`, also for `batch_tokens`), each
    example augmented by (seed, epoch, id). Call `fit` with `steps_per_epoch=plan_batches(...).steps`.
    Without, it is one epoch in the order of the examples, as they are, in batches of `global_batch_size`.
    `replicas` is how many share each batch: where the last one would leave some of them without an example
    (BatchNorm then learns NaN), it is joined to the one before. `inputs_of` gives the inputs in place of
    reading, augmenting and encoding: see `InputsOf`. `mixing` mixes the pictures of each batch, and their
    targets: see `Mixing`. `first_step` batches of the first epoch are left out; nothing of them is read.
    `share`: see `Share`; what is cut out of a batch is what the whole batch would have there, padding apart.
    With `fill_last` all batches are of one size, for devices that compile for every shape: the last one of an
    epoch is filled up with those that came first. Not with `batch_tokens`.
    """
    count = len(examples)
    if training:
        plan = plan_batches(
            examples,
            preprocessing,
            global_batch_size=global_batch_size,
            batch_tokens=batch_tokens,
            replicas=replicas,
            seed=seed,
            stage=stage,
            fill_last=fill_last,
        )
        starts = tf.constant(plan.starts)
    else:
        first_epoch, epochs = 0, 1
        in_order = starts_in_order(examples, preprocessing, global_batch_size, replicas, fill_last)
        starts = tf.constant(in_order)
    steps = len(starts) - 1
    # Somebody's own augmentation may branch on tensors as Python does. Nothing else here does, and to convert
    # it takes longer than all the rest of the making.
    plain = tf.autograph.experimental.do_not_convert
    own_functions = inputs_of is None and training
    inputs_of = inputs_of or _encoder(examples, preprocessing, training)
    targets_of = _target_reader(examples)
    weights = _weights(examples, sample_weights)
    hashes = hash_ids(examples.ids)
    takes_partner = mixing is not None and share.total > 1  # the last row is mixed with the one after it

    def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
        if training:
            order, numbers = batches_of_epoch(plan, epoch)
        else:
            order, numbers = in_turns(in_order, count), tf.range(steps, dtype=tf.int64)

        def cut(number: tf.Tensor, part: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start, size = starts[number], starts[number + 1] - starts[number]
            first, end = share.begin(part, size), share.begin(part + 1, size)
            if takes_partner:
                return tf.gather(order, start + tf.range(first, end + 1) % size), epoch
            rows = order[start + first : start + end]
            return tf.ensure_shape(rows, (global_batch_size,) if fill_last else (None,)), epoch

        parts = tf.range(share.first, share.first + share.count, dtype=tf.int64)
        slices = (tf.repeat(numbers, share.count), tf.tile(parts, [steps]))
        return tf.data.Dataset.from_tensor_slices(slices).map(plain(cut))

    def make_batch(indices: tf.Tensor, epoch: tf.Tensor) -> tuple[Any, ...]:
        # Seed and epoch are below 2**31, so no two pairs share a number.
        draw = tf.fill(tf.shape(indices), tf.constant(seed, tf.int64) * 2**31 + epoch)
        seeds = tf.stack([draw, tf.gather(hashes, indices)], axis=1)
        inputs = inputs_of(indices, seeds)
        targets = targets_of(indices)
        weight = None if weights is None else tf.gather(weights, indices)
        if mixing is not None:
            inputs, targets, weight = mixing(inputs, targets, weight, seeds)
        if takes_partner:
            inputs, targets, weight = _without_last(inputs, targets, weight)
        parts = [targets] if weight is None else [targets, weight]
        if isinstance(preprocessing, TextPreprocessing) and preprocessing.task == "embed":
            parts = [tf.repeat(part, 2, axis=0) for part in parts]
        if isinstance(inputs, dict) and "word_starts" in inputs:
            parts[0] = tf.where(inputs["word_starts"] < 0, -1, parts[0])
        return inputs, *parts

    dataset = tf.data.Dataset.range(first_epoch, first_epoch + epochs).flat_map(plain(batches_of))
    dataset = dataset.skip(first_step * share.count)
    make = make_batch if own_functions else plain(make_batch)
    dataset = dataset.map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if not first_step:  # Keras counts the steps that were left out, too: with the number it would end early
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(epochs * steps * share.count))
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(pipeline_options())


def _without_last(*parts: tf.Tensor | None) -> tuple[tf.Tensor | None, ...]:
    return tuple(None if part is None else part[:-1] for part in parts)


def _encoder(
    examples: Examples, preprocessing: ImagePreprocessing | TextPreprocessing, training: bool
) -> InputsOf:
    samples_of = sample_reader(examples, preprocessing)

    def inputs_of(indices: tf.Tensor, seeds: tf.Tensor) -> Any:
        samples = samples_of(indices)
        return preprocessing.encode(preprocessing.augment(samples, seeds) if training else samples)

    return inputs_of


def sample_reader(
    examples: Examples, preprocessing: ImagePreprocessing | TextPreprocessing
) -> Callable[[tf.Tensor], Any]:
    """From indices (batch,) to samples."""
    if examples.samples is None:
        read = _content_reader(examples)
        return _shaped(lambda indices: preprocessing.decode_batch(read(indices)), preprocessing)
    if isinstance(preprocessing, ImagePreprocessing):
        return _shaped(_picture_reader(examples.samples), preprocessing)
    assert isinstance(examples.samples, np.ndarray)
    texts = text_tensor(examples.samples)
    return lambda indices: tf.gather(texts, indices)


def _target_reader(examples: Examples) -> Callable[[tf.Tensor], tf.Tensor]:
    """From indices (batch,) to targets; those of words are padded with −1."""
    if examples.targets.dtype != object:
        targets = tf.constant(examples.targets)
        return lambda indices: tf.gather(targets, indices)
    sizes = tf.constant([len(tags) for tags in examples.targets], tf.int64)
    tags = tf.RaggedTensor.from_row_lengths(
        tf.constant(np.concatenate([np.zeros(0, np.int32), *examples.targets]), tf.int32), sizes
    )
    return lambda indices: tf.gather(tags, indices).to_tensor(-1)


def _shaped(
    samples_of: Callable[[tf.Tensor], Any], preprocessing: ImagePreprocessing | TextPreprocessing
) -> Callable[[tf.Tensor], Any]:
    if isinstance(preprocessing, TextPreprocessing):
        return samples_of
    shape = (None, preprocessing.image_size, preprocessing.image_size, 3)
    return lambda indices: tf.ensure_shape(samples_of(indices), shape)


def _picture_reader(samples: npt.NDArray[Any] | Pictures) -> Callable[[tf.Tensor], tf.Tensor]:
    """From indices (batch,) to samples (batch, H, W, 3)."""
    # Not by Python in the pipeline (tf.numpy_function), which deadlocks now and then: an iterator that is
    # deleted waits, with the interpreter's lock, for a batch that needs that lock.
    pictures = samples if isinstance(samples, Pictures) else Pictures.of(samples)
    tensor, rows = as_tensor(pictures.array), tf.constant(pictures.rows)
    return lambda indices: tf.gather(tensor, tf.gather(rows, indices))


def _content_reader(examples: Examples) -> Callable[[tf.Tensor], tf.Tensor]:
    """From indices (batch,) to what is in the files or records, strings (batch,) or (batch, 2)."""
    read = _file_reader(examples) if examples.records is None else examples.records.reader()
    return read if examples.marks is None else checked_reader(read, examples.marks)


def _file_reader(examples: Examples) -> Callable[[tf.Tensor], tf.Tensor]:
    """From indices (batch,) to what is in the files, strings (batch,)."""
    assert examples.paths is not None
    paths = tf.constant(examples.paths)
    return lambda indices: tf.map_fn(
        tf.io.read_file, tf.gather(paths, indices), fn_output_signature=tf.string
    )


def _weights(examples: Examples, sample_weights: npt.NDArray[Any] | None) -> tf.Tensor | None:
    given = [part for part in (examples.weights, sample_weights) if part is not None]
    return tf.constant(np.prod(given, axis=0), tf.float32) if given else None


def hash_ids(ids: npt.NDArray[np.str_]) -> tf.Tensor:
    """A number for each id, int64 (N,), for seeds."""
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in ids.tolist())
    return tf.constant(np.frombuffer(digests, dtype="<i8").astype(np.int64))


def pipeline_options() -> tf.data.Options:
    """The options of every pipeline."""
    options = tf.data.Options()
    options.deterministic = True
    # Without it, a map takes all cores from its first batch on. With it, an iterator that is deleted waits
    # for the thread that tunes, which sleeps for up to a minute where it misses the call (TensorFlow 2.21).
    options.autotune.enabled = False
    # They do nothing for these pipelines, and copy whatever is gathered from (TensorFlow 2.21).
    options.experimental_optimization.apply_default_optimizations = False
    # Each replica takes its part of every batch; there are no shards of files to hand out.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
