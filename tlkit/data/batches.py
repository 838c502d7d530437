"""Which examples are in which batch: a function of (seed, stage, epoch), known without replaying anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.data.manifest import Examples
from tlkit.errors import DataError
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process reads: that of `count` replicas, from number `first` on, of
    `total`; each replica's part is a batch of its own. As it stands, whole batches, for TensorFlow to share
    out among the replicas of this process.

    A batch is cut into as many parts as there are replicas, of like size, the first ones larger by one row.
    """

    first: int = 0
    count: int = 1
    total: int = 1

    def begin(self, part: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """The row with which a part of a batch of `size` rows begins; part `total` is the end."""
        return part * (size // self.total) + tf.minimum(part, size % self.total)


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The batches of any epoch of a stage.

    `starts`, int64 (steps + 1,), cuts the epoch's order into batches; the same for every epoch, because there
    are always as many texts of a length. Where it goes beyond `count`, the order begins again. `padded`,
    int64 (count,), is what each text is padded to; with it, an epoch is in order of length, its batches in
    random order. None: the epoch's order is all there is.
    """

    count: int
    starts: npt.NDArray[np.int64]
    seed: int
    stage: int
    padded: npt.NDArray[np.int64] | None = None

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return len(self.starts) - 1


def plan_batches(
    examples: Examples,
    preprocessing: ImagePreprocessing | TextPreprocessing,
    *,
    global_batch_size: int,
    batch_tokens: int | None = None,
    replicas: int = 1,
    seed: int = 0,
    stage: int = 0,
    fill_last: bool = False,
) -> BatchPlan:
    """The batches of training on `examples`.

    Texts of like length go together, where the preprocessing has buckets and pads to them: the order of an
    epoch is sorted by bucket, within one it stays random, and cut into batches, whose order is then drawn.
    So every example is there once, and at most one batch in an epoch is smaller than the others.

    With `batch_tokens`, a batch takes as many texts as fit into that many tokens, padding included, instead
    of `global_batch_size`; at least one for each replica, and as many for one replica as for another.
    `replicas` and `fill_last` are as in `make_pipeline`.

    Raises DataError for pairs of `embed` that cannot be shared out among several replicas.
    """
    count = len(examples)
    padded = padded_lengths(examples, preprocessing)
    if batch_tokens is None or padded is None:
        starts = _even_starts(count, global_batch_size, replicas, fill_last)
    else:
        doubled = 2 if _task(preprocessing) == "embed" else 1
        starts = _starts_by_tokens(np.sort(padded) * doubled, batch_tokens, replicas)
    _require_whole_pairs(starts, preprocessing, replicas)
    is_sorted = padded is not None and len(np.unique(padded)) > 1
    return BatchPlan(count, starts, seed, stage, padded if is_sorted else None)


def starts_in_order(
    examples: Examples,
    preprocessing: ImagePreprocessing | TextPreprocessing,
    global_batch_size: int,
    replicas: int = 1,
    fill_last: bool = False,
) -> npt.NDArray[np.int64]:
    """Where each batch begins, and the last one ends, of examples in the order that they have.

    Raises what `plan_batches` raises.
    """
    starts = _even_starts(len(examples), global_batch_size, replicas, fill_last)
    _require_whole_pairs(starts, preprocessing, replicas)
    return starts


def count_steps(count: int, global_batch_size: int, replicas: int = 1) -> int:
    """Batches in one epoch of `count` examples; see `make_pipeline` for `replicas`.

    Of batches that are counted in tokens the plan knows: `plan_batches(...).steps`.
    """
    steps = math.ceil(count / global_batch_size)
    last = count - (steps - 1) * global_batch_size
    return steps - 1 if steps > 1 and last < replicas else steps


def order_of_epoch(count: int, seed: int, stage: int, epoch: tf.Tensor | int) -> tf.Tensor:
    """A random order of `count` examples, int64 (count,): a function of its arguments alone."""
    key = _key(seed, stage, epoch)
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), seed=key)


def batches_of_epoch(plan: BatchPlan, epoch: tf.Tensor | int) -> tuple[tf.Tensor, tf.Tensor]:
    """The order of the examples in an epoch, int64 (starts[-1],), and the numbers of its batches in the order
    in which they come, int64 (steps,): batch k is `order[starts[k] : starts[k + 1]]`."""
    order = order_of_epoch(plan.count, plan.seed, plan.stage, epoch)
    numbers = tf.range(plan.steps, dtype=tf.int64)
    if plan.padded is None:
        return tf.gather(order, in_turns(plan.starts, plan.count)), numbers
    # The place in the order breaks ties, so that no two are alike and every sort gives the same.
    ranks = tf.gather(tf.constant(plan.padded), order) * plan.count + tf.range(plan.count, dtype=tf.int64)
    order = tf.gather(order, tf.argsort(ranks))
    order = tf.gather(order, in_turns(plan.starts, plan.count))
    key = tf.random.experimental.stateless_fold_in(_key(plan.seed, plan.stage, epoch), 1)
    return order, tf.random.experimental.stateless_shuffle(numbers, seed=key)


def in_turns(starts: npt.NDArray[np.int64], count: int) -> tf.Tensor:
    """The numbers of `count` examples as the batches take them, int64 (starts[-1],): in order, and from the
    first one again where the batches need more."""
    return tf.range(starts[-1], dtype=tf.int64) % count


def rows_of_batch(plan: BatchPlan, epoch: int, step: int) -> npt.NDArray[np.int64]:
    """Which examples are in batch `step` of an epoch, both counted from 0."""
    order, numbers = batches_of_epoch(plan, epoch)
    number = int(numbers[step])
    rows: npt.NDArray[np.int64] = order.numpy()[plan.starts[number] : plan.starts[number + 1]]
    return rows


def _key(seed: int, stage: int, epoch: tf.Tensor | int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(
        tf.constant([seed, stage], tf.int64), tf.cast(epoch, tf.int64)
    )


def _require_whole_pairs(
    starts: npt.NDArray[np.int64], preprocessing: ImagePreprocessing | TextPreprocessing, replicas: int
) -> None:
    """A batch is shared out by rows: pairs that cannot be shared evenly would be torn apart."""
    if _task(preprocessing) != "embed" or not np.any(np.diff(starts) % replicas):
        return
    raise DataError(
        f"task=embed on {replicas} replicas needs numbers of pairs that they can share, received "
        f"{starts[-1]:,} pairs in batches of {starts[1]}: leave out {starts[-1] % replicas} of them and use "
        f"a batch size that {replicas} divides, or --strategy cpu or gpu."
    )


def padded_lengths(
    examples: Examples, preprocessing: ImagePreprocessing | TextPreprocessing
) -> npt.NDArray[np.int64] | None:
    """What each text is padded to; without buckets any text may be in a batch with the longest."""
    if not isinstance(preprocessing, TextPreprocessing) or examples.lengths is None:
        return None
    lengths = examples.lengths.astype(np.int64)
    most = preprocessing.sequence_length
    if not preprocessing.input.mask:
        padded = np.full(len(lengths), most)
    elif preprocessing.buckets:
        buckets = np.array(preprocessing.buckets)
        padded = buckets[np.minimum(np.searchsorted(buckets, lengths), len(buckets) - 1)]
    else:
        padded = np.full(len(lengths), min(lengths.max(initial=0), most))
    # Windows are longer than any bucket.
    at_least: npt.NDArray[np.int64] = np.maximum(padded, lengths).astype(np.int64)
    return at_least


def _task(preprocessing: ImagePreprocessing | TextPreprocessing) -> str | None:
    return preprocessing.task if isinstance(preprocessing, TextPreprocessing) else None


def _even_starts(count: int, global_batch_size: int, replicas: int, fill_last: bool) -> npt.NDArray[np.int64]:
    if fill_last:
        return np.arange(math.ceil(count / global_batch_size) + 1, dtype=np.int64) * global_batch_size
    starts = np.arange(count_steps(count, global_batch_size, replicas) + 1) * global_batch_size
    starts[-1] = count
    return starts.astype(np.int64)


def _starts_by_tokens(padded: npt.NDArray[np.int64], tokens: int, replicas: int) -> npt.NDArray[np.int64]:
    """Cuts through ascending lengths: as many texts as `tokens` hold when all are padded to the last."""
    starts = [0]
    while starts[-1] < len(padded):
        first = starts[-1]
        reach = padded[first : first + tokens // int(padded[first]) + 1]
        size = int(np.sum(reach * np.arange(1, len(reach) + 1) <= tokens))
        starts.append(min(first + max(size // replicas, 1) * replicas, len(padded)))
    if len(starts) > 2 and starts[-1] - starts[-2] < replicas:
        del starts[-2]
    return np.array(starts, dtype=np.int64)
