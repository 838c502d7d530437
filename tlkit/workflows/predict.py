"""Answers for new pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tlkit.errors import DataError
from tlkit.heads import to_scores
from tlkit.preprocessing import to_rgb, why_refused
from tlkit.progress import track
from tlkit.workflows.run import Run, load_run

BATCH = 32


@dataclass(frozen=True)
class Input:
    """One picture to predict: a name to report it by, and its sample or the reason why there is none."""

    name: str
    sample: np.ndarray | None
    error: str | None = None


def predict_run(run: Run | str | Path, inputs: Any, top: int = 5) -> list[dict[str, Any]]:
    """Predict pictures.

    Args:
        run: A run, or its folder.
        inputs: One or several of: a file or folder (taken with all files below), encoded bytes, a decoded
            array (H, W, 3). An array (n, H, W, 3) is n pictures.
        top: How many labels `top_k` lists.

    Returns:
        For each picture a dict: `input`, and for classifiers `label`, `score`, `scores` and `top_k`, for
        regressors `value`. A picture that cannot be read has `input` and `error` instead.

    Raises:
        DataError: A path does not exist, a folder holds no file, or an input is no picture at all.
    """
    run = run if isinstance(run, Run) else load_run(run)
    answers: list[dict[str, Any]] = []
    items = [inputs] if is_one(inputs) or isinstance(inputs, str | Path) else inputs
    sources = [source for item in items for source in _expand(item)]
    batches = [sources[start : start + BATCH] for start in range(0, len(sources), BATCH)]
    for batch in track(batches, "Predicting"):
        pictures = [_read(source, run) for source in batch]
        answers += _answer(run, pictures, top)
    return answers


def is_one(inputs: Any) -> bool:
    """Whether this is one picture, not several: no folder, no list, no array with an axis of examples."""
    if isinstance(inputs, str | Path):
        return not Path(inputs).is_dir()
    if isinstance(inputs, np.ndarray) or tf.is_tensor(inputs):
        return len(inputs.shape) < 4
    return isinstance(inputs, bytes) or not isinstance(inputs, Iterable)


def _expand(item: Any) -> Sequence[Any]:
    if tf.is_tensor(item):
        item = item.numpy()
    if not isinstance(item, str | Path | bytes | np.ndarray):
        raise DataError(
            f"Cannot predict from {type(item).__name__}: expected a path, encoded bytes, or an array. "
            "Of a PIL picture: numpy.asarray(picture.convert('RGB'))."
        )
    if not isinstance(item, str | Path):
        return [item]
    path = Path(item)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            raise DataError(f"{path}: the folder holds no file to predict.")
        return files
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    return [path]


def _read(source: Any, run: Run) -> Input:
    if isinstance(source, np.ndarray):
        sample = run.preprocessing.resize_batch(to_rgb(source)[None])[0]
        return Input("array", np.asarray(sample))
    name = str(source) if isinstance(source, Path) else "bytes"
    try:
        raw = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        return Input(name, None, f"cannot be read: {error.strerror}")
    try:
        return Input(name, np.asarray(_decode(run, raw)))
    except tf.errors.OpError as error:
        return Input(name, None, why_refused(raw) or error.message.splitlines()[0])


def _decode(run: Run, raw: bytes) -> tf.Tensor:
    return run.preprocessing.decode_batch(tf.constant([raw]))[0]


def _answer(run: Run, pictures: Sequence[Input], top: int) -> list[dict[str, Any]]:
    samples = [picture.sample for picture in pictures if picture.sample is not None]
    if samples:
        outputs = run.outputs(run.preprocessing.encode(tf.constant(np.stack(samples))))
        scores = iter(np.asarray(to_scores(run.config.task, outputs), "float32"))
    return [
        {"input": picture.name, "error": picture.error}
        if picture.sample is None
        else {"input": picture.name, **describe(next(scores), run, top)}
        for picture in pictures
    ]


def describe(scores: np.ndarray, run: Run, top: int = 5) -> dict[str, Any]:
    """What the scores (classes,) or values (targets,) of one picture mean."""
    if run.classes is None:
        return {"value": float(scores[0]) if scores.size == 1 else [float(value) for value in scores]}
    order = np.argsort(-scores, kind="stable")
    names = run.classes
    best = int(order[0])
    label = names[best]
    if run.config.task == "multilabel":
        label = "|".join(name for name, score in zip(names, scores, strict=True) if score > 0.5)
    return {
        "label": label,
        "score": float(scores[best]),
        "scores": {name: float(score) for name, score in zip(names, scores, strict=True)},
        "top_k": [{"label": names[int(index)], "score": float(scores[int(index)])} for index in order[:top]],
    }
