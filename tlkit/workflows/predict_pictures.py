"""Pictures to predict: files, folders, bytes and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf

from tlkit.errors import DataError
from tlkit.heads import to_scores
from tlkit.places import require_local
from tlkit.preprocessing import ImagePreprocessing, to_rgb, why_refused
from tlkit.workflows.predict_describe import Input, describe
from tlkit.workflows.run import Run


def is_one(run: Run, inputs: Any) -> bool:
    """Whether this is one picture: no folder, no list, no array with an axis of examples."""
    if isinstance(inputs, str | Path):
        return not Path(inputs).is_dir()
    if isinstance(inputs, np.ndarray) or tf.is_tensor(inputs):
        return len(inputs.shape) < 4
    return isinstance(inputs, bytes) or not isinstance(inputs, Iterable)


def expand(run: Run, inputs: Any) -> list[Any]:
    """One source per picture: a path, bytes or an array (H, W, 3)."""
    items = [inputs] if is_one(run, inputs) or isinstance(inputs, str | Path) else inputs
    return [source for item in items for source in _expand_item(item)]


def size(source: Any) -> int:
    """All pictures cost the same."""
    return 0


def read(run: Run, sources: Sequence[Any]) -> list[Input]:
    """Each source as a sample, uint8 (H, W, 3) of the run's size."""
    return [_read(run, source) for source in sources]


def answer(run: Run, samples: Sequence[Any], top: int) -> Iterator[dict[str, Any]]:
    """What the run says about each sample."""
    outputs = run.outputs(run.preprocessing.encode(tf.constant(np.stack(samples))))
    for scores in np.asarray(to_scores(run.config.objective, outputs), "float32"):
        yield describe(scores, run, top)


def _expand_item(item: Any) -> Sequence[Any]:
    if tf.is_tensor(item):
        item = item.numpy()
    if not isinstance(item, str | Path | bytes | np.ndarray):
        raise DataError(
            f"Cannot predict from {type(item).__name__}: expected a path, encoded bytes, or an array. "
            "Of a PIL picture: numpy.asarray(picture.convert('RGB'))."
        )
    if not isinstance(item, str | Path):
        return [item]
    require_local(item, "An input")
    path = Path(item)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            raise DataError(f"{path}: the folder holds no file to predict.")
        return files
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    return [path]


def _read(run: Run, source: Any) -> Input:
    preprocessing = cast(ImagePreprocessing, run.preprocessing)
    if isinstance(source, np.ndarray):
        sample = preprocessing.resize_batch(to_rgb(source)[None])[0]
        return Input({"input": "array"}, np.asarray(sample))
    shown = {"input": str(source) if isinstance(source, Path) else "bytes"}
    try:
        raw = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        return Input(shown, error=f"cannot be read: {error.strerror}")
    try:
        return Input(shown, np.asarray(preprocessing.decode_batch(tf.constant([raw]))[0]))
    except tf.errors.OpError as error:
        return Input(shown, error=why_refused(raw) or error.message.splitlines()[0])
