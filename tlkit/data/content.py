"""One pass over the content of all examples: read, hash, and decode as training does."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.data.rows import Rows
from tlkit.errors import DataError
from tlkit.preprocessing import to_rgb, why_refused
from tlkit.progress import make_progress

_QUIET_SECONDS = 2.0

FromRaw = Callable[[tf.Tensor], tf.Tensor]
FromPicture = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Content:
    """Per row: the sha256 of the raw content ("" where it cannot be read), and why it cannot be used."""

    hashes: tuple[str, ...]
    problems: tuple[str | None, ...]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        return np.array([problem is None for problem in self.problems], dtype=bool)


def read_content(
    rows: Rows, from_raw: FromRaw, from_picture: FromPicture, keep: npt.NDArray[Any] | None = None
) -> Content:
    """Read every example once, in parallel; a bar is shown when it takes longer than two seconds.

    `from_raw` makes a result from the bytes of a file (scalar string), `from_picture` from an RGB picture
    (uint8, H, W, 3); both are traced as graphs. `keep[i]` takes the result of row i.
    """
    decode = _trace(from_raw, tf.TensorSpec((), tf.string))
    convert = _trace(from_picture, tf.TensorSpec((None, None, 3), tf.uint8))

    def read(row: int) -> tuple[str, str | None]:
        if rows.paths is not None:
            digest, problem, result = _read_file(rows.paths[row], decode)
        else:
            assert rows.pictures is not None
            digest, problem, result = _read_picture(rows.pictures[row], convert)
        if keep is not None and result is not None:
            keep[row] = result
        return digest, problem

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(_watched(pool.map(read, range(len(rows))), len(rows), "Reading pictures"))
    return Content(tuple(digest for digest, _ in found), tuple(problem for _, problem in found))


def _read_file(path: str, decode: Callable[[Any], Any]) -> tuple[str, str | None, Any]:
    try:
        raw = Path(path).read_bytes()
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
        return digest, f"is not a picture: {error}", None


def _trace(function: Callable[[tf.Tensor], tf.Tensor], spec: tf.TensorSpec) -> Callable[[Any], Any]:
    # On the CPU, where tf.data decodes, too: a GPU may round another way.
    traced = tf.function(function, input_signature=[spec])
    with tf.device("CPU:0"):
        concrete = traced.get_concrete_function()

    def call(value: Any) -> Any:
        with tf.device("CPU:0"):
            return concrete(tf.constant(value)).numpy()

    return call


def _watched(items: Iterable[Any], total: int, description: str) -> Iterable[Any]:
    began, bar, task = time.monotonic(), None, None
    with ExitStack() as stack:
        for done, item in enumerate(items, 1):
            if bar is None and time.monotonic() - began > _QUIET_SECONDS:
                bar = stack.enter_context(make_progress())
                task = bar.add_task(description, total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done)
            yield item
