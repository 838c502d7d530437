"""One pass over the content of all examples: read, hash, and decode as training does."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.data.pictures import Pictures
from tlkit.data.rows import Rows
from tlkit.errors import DataError
from tlkit.preprocessing import ImagePreprocessing, to_rgb, why_refused
from tlkit.preprocessing.decoding import decode_picture
from tlkit.progress import make_progress

_QUIET_SECONDS = 2.0
_BLOCK = 512
_PICTURE = tf.TensorSpec((None, None, 3), tf.uint8)


@dataclass(frozen=True)
class Maker:
    """What is made of an example: of the bytes of a file, or of an RGB picture (uint8, H, W, 3), as numpy."""

    from_raw: Callable[[bytes], npt.NDArray[Any]]
    from_picture: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Content:
    """Per row: the sha256 of the raw content ("" where it cannot be read), and why it cannot be used."""

    hashes: tuple[str, ...]
    problems: tuple[str | None, ...]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        return np.array([problem is None for problem in self.problems], dtype=bool)


def read_content(rows: Rows, maker: Maker, keep: npt.NDArray[Any] | Pictures | None = None) -> Content:
    """Read every example once, in parallel; a bar is shown when it takes longer than two seconds.

    `keep[i]` takes what `maker` makes of row i.
    """

    def read(row: int) -> tuple[str, str | None]:
        if row in rows.broken:
            return "", rows.broken[row]
        if rows.pictures is not None:
            digest, problem, result = _read_picture(rows.pictures[row], maker.from_picture)
        else:
            digest, problem, result = _read_raw(partial(rows.read, row), maker.from_raw)
        if keep is not None and result is not None:
            keep[row] = result
        return digest, problem

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(watched(_in_blocks(pool, read, len(rows), keep), len(rows), "Reading pictures"))
    return Content(tuple(digest for digest, _ in found), tuple(problem for _, problem in found))


def _in_blocks(
    pool: ThreadPoolExecutor,
    read: Callable[[int], tuple[str, str | None]],
    count: int,
    keep: npt.NDArray[Any] | Pictures | None,
) -> Iterator[tuple[str, str | None]]:
    """Rows in their order, a block at a time: what waits to be read and to be written stays bounded."""
    for start in range(0, count, _BLOCK):
        yield from pool.map(read, range(start, min(start + _BLOCK, count)))
        if isinstance(keep, Pictures):
            keep.release()


def sample_maker(preprocessing: ImagePreprocessing) -> Maker:
    """Makes samples, uint8 (H, W, 3), with the decoding that training uses."""
    return _traced_samples(dataclasses.replace(preprocessing, augmentation=None))


def mark_maker(preprocessing: ImagePreprocessing) -> Maker:
    """Makes fingerprints, int64 (), of files that can be decoded as training does."""
    samples = sample_maker(preprocessing)

    def from_raw(raw: bytes) -> npt.NDArray[Any]:
        samples.from_raw(raw)
        return np.asarray(fingerprint(tf.constant(raw)).numpy())

    return Maker(from_raw, samples.from_picture)


def fingerprint(raw: tf.Tensor) -> tf.Tensor:
    """A number that tells contents apart, int64, for each of the strings. The graph has no sha256."""
    return tf.strings.to_hash_bucket_fast(raw, 2**63 - 1)


@functools.cache
def size_maker() -> Maker:
    """Makes the height and width of the decoded picture, int32 (2,)."""
    return Maker(
        _trace(lambda raw: tf.shape(decode_picture(raw))[:2], tf.TensorSpec((), tf.string)),
        _trace(lambda picture: tf.shape(picture)[:2], _PICTURE),
    )


@functools.lru_cache(maxsize=4)  # a trace of the decoders takes seconds
def _traced_samples(preprocessing: ImagePreprocessing) -> Maker:
    return Maker(
        _trace(preprocessing.decode, tf.TensorSpec((), tf.string)),
        _trace(lambda picture: preprocessing.resize_batch(picture[None])[0], _PICTURE),
    )


def _read_raw(read: Callable[[], bytes], decode: Callable[[bytes], Any]) -> tuple[str, str | None, Any]:
    try:
        raw = read()
    except OSError as error:
        return "", f"cannot be read: {error.strerror}", None
    digest = hashlib.sha256(raw).hexdigest()
    try:
        return digest, None, decode(raw)
    except tf.errors.OpError as error:
        return digest, why_refused(raw) or f"cannot be decoded: {error.message.splitlines()[0][:160]}", None


def _read_picture(picture: npt.NDArray[Any], convert: Callable[[Any], Any]) -> tuple[str, str | None, Any]:
    header = f"{picture.shape} {picture.dtype}".encode()
    if picture.dtype == object:
        return "", f"is not a picture: {str(picture)[:40]!r}", None
    digest = hashlib.sha256(header + np.ascontiguousarray(picture).tobytes()).hexdigest()
    try:
        return digest, None, convert(to_rgb(picture))
    except DataError as error:
        return digest, f"is not a picture: {str(error).rstrip('.')}", None


def _trace(function: Callable[[tf.Tensor], tf.Tensor], spec: tf.TensorSpec) -> Callable[[Any], Any]:
    """`function` as a graph that is traced at its first call and may be called from several threads."""
    traced = tf.function(function, input_signature=[spec], autograph=False)

    def call(value: Any) -> Any:
        with tf.device("CPU:0"):  # where tf.data decodes, too: a GPU may round another way
            return traced(tf.constant(value)).numpy()

    return call


def watched(items: Iterable[Any], total: int, description: str) -> Iterable[Any]:
    """The `items` as they are, with a bar from the third second on."""
    began, bar, task = time.monotonic(), None, None
    with ExitStack() as stack:
        for done, item in enumerate(items, 1):
            if bar is None and time.monotonic() - began > _QUIET_SECONDS:
                bar = stack.enter_context(make_progress())
                task = bar.add_task(description, total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done)
            yield item
