"""What several workers of one run tell each other. Every worker has to call each of these, in the same order;
a process that runs alone gets back what it passes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.errors import TrainingError

WORD = np.dtype(np.int64)  # what every kind of device can add up
MOST_WORDS = 2**22  # that are sent at once
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
# These have other causes, too: where a worker is lost, they speak of the others, or of one that came back.
PERHAPS_LOST = (tf.errors.FailedPreconditionError, tf.errors.DeadlineExceededError)
SPEAKS_OF_OTHERS = re.compile(r"collective|incarnation|was probably restarted|heartbeat|remote worker", re.I)


def replicas_here(strategy: tf.distribute.Strategy) -> tuple[int, int, int]:
    """The number of the first replica that this process runs, how many it runs, and how many there are."""
    if not is_multi_worker(strategy):
        return 0, strategy.num_replicas_in_sync, strategy.num_replicas_in_sync
    numbers = strategy.experimental_distribute_values_from_function(
        lambda context: context.replica_id_in_sync_group
    )
    here = strategy.experimental_local_results(numbers)
    return int(here[0]), len(here), strategy.num_replicas_in_sync


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Whether it is the strategy of workers, each of which reads its own part of the data."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def place_of_worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """The number of this worker, and how many there are."""
    first, count, total = replicas_here(strategy)
    return first // count, total // count


def gather(strategy: tf.distribute.Strategy, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """The numbers that each worker passes, in their order: (workers, …)."""
    place, n_workers = place_of_worker(strategy)
    own = np.asarray(values)
    every = np.zeros((n_workers, *own.shape), own.dtype)
    every[place] = own
    return sum_over_workers(strategy, every)


def gather_bytes(strategy: tf.distribute.Strategy, data: bytes) -> list[bytes]:
    """What each worker passes, of any length, in their order."""
    place, n_workers = place_of_worker(strategy)
    if n_workers == 1:
        return [data]
    sizes = [int(size) for size in gather(strategy, len(data))]
    starts = np.cumsum([0, *(-(-size // WORD.itemsize) for size in sizes)])
    words = np.zeros(starts[-1], WORD)
    words[starts[place] : starts[place + 1]] = _words(data)
    every = _sum_in_parts(strategy, words).tobytes()
    begins = [int(start) * WORD.itemsize for start in starts[:-1]]
    return [every[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]


def gather_replicas(
    strategy: tf.distribute.Strategy, values: Sequence[Sequence[npt.NDArray[Any]]]
) -> list[list[npt.NDArray[Any]]]:
    """Of each variable what every replica of all workers has, in their order; one value, where all have the
    same, bit for bit.

    Args:
        strategy: Of the run.
        values: Of each variable what the replicas of this process have.
    """
    _, count, total = replicas_here(strategy)
    differ = np.array([len({each.tobytes() for each in copies}) > 1 for copies in values], bool)
    if count < total:
        marks = [fingerprint(copies[0].tobytes()) for copies in values]
        every = gather(strategy, np.array([marks, differ]))
        differ = every[:, 1].any(axis=0) | (every[:, 0] != every[0, 0]).any(axis=0)
    found = [list(copies[:1]) for copies in values]
    places = [int(place) for place in np.flatnonzero(differ)]
    of_each = [[values[place][copy] for place in places] for copy in range(count)]
    if not places:
        return found
    packed = [b"".join(value.tobytes() for value in of_one) for of_one in of_each]
    everywhere = [
        part[place * len(packed[0]) : (place + 1) * len(packed[0])]
        for part in gather_bytes(strategy, b"".join(packed))
        for place in range(count)
    ]
    begin = 0
    for place in places:
        like = values[place][0]
        parts = (np.frombuffer(each[begin : begin + like.nbytes], like.dtype) for each in everywhere)
        found[place] = [part.reshape(like.shape) for part in parts]
        begin += like.nbytes
    return found


def sum_over_workers(strategy: tf.distribute.Strategy, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """The sum of the arrays that the workers pass, which have the same shape, in int64 where they are of
    integers, else in float64.

    Raises:
        TrainingError: Another worker stopped.
    """
    own = np.asarray(values)
    own = own.astype(WORD if own.dtype.kind in "iu" else np.float64)
    first, count, total = replicas_here(strategy)
    if count == total:
        return own

    def of_replica(context: tf.distribute.ValueContext) -> tf.Tensor:
        return tf.constant(own if context.replica_id_in_sync_group == first else np.zeros_like(own))

    passed = strategy.experimental_distribute_values_from_function(of_replica)
    with lost_workers_told():
        summed: npt.NDArray[Any] = strategy.reduce("SUM", passed, axis=None).numpy()
    return summed


@contextmanager
def lost_workers_told(several: bool = True) -> Iterator[None]:
    """Inside, what TensorFlow raises where another of `several` workers stopped becomes a TrainingError."""
    try:
        yield
    except (*LOST, *PERHAPS_LOST) as error:
        if not several or not (isinstance(error, LOST) or SPEAKS_OF_OTHERS.search(error.message)):
            raise
        reason = re.search(r"aborted by: ([^\n\[]+)", str(error))
        why = f" ({reason[1]})" if reason else ""
        raise TrainingError(
            f"Another worker stopped, and this one cannot go on without it{why}. Its own message says why; "
            "start all of them again, with --resume."
        ) from None


def fingerprint(*parts: bytes) -> int:
    """A number below 2**48 that tells the data of one worker from another's."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest()[:6], "big")


def _words(data: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(data + bytes(-len(data) % WORD.itemsize), WORD)


def _sum_in_parts(strategy: tf.distribute.Strategy, words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    starts = range(0, len(words), MOST_WORDS)
    parts = [sum_over_workers(strategy, words[start : start + MOST_WORDS]) for start in starts]
    return np.concatenate([words[:0], *parts])
