"""The proof that an exported model answers like the run: reload it in a fresh process and compare."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tlkit.config import Task
from tlkit.errors import ExportMismatch
from tlkit.exporting import fresh_process
from tlkit.exporting.odd_formats import add_odd_formats
from tlkit.exporting.signatures import name_answers

TOLERANCE = 1e-5
GPU_TOLERANCE = 1e-2  # TensorFloat-32 keeps 10 bits of each factor's mantissa: 2^-10 per product
BATCH = 8
PICTURES = 8

Answers = dict[str, np.ndarray]


@dataclass(frozen=True)
class CheckReport:
    """What was compared. Differences are the largest ones, absolute for scores, relative to the largest
    value for a regression. `difference` is to the answers of this process, `run_difference` to those that
    the run gave before (None where there were none)."""

    formats: dict[str, int]
    difference: float
    tensor_difference: float
    run_difference: float | None

    @property
    def examples(self) -> int:
        return sum(self.formats.values())


def check_export(
    saved_model: Path,
    *,
    predict_bytes: Callable[[tf.Tensor], tf.Tensor],
    predict_pictures: Callable[[tf.Tensor], tf.Tensor],
    task: Task,
    classes: Sequence[str],
    examples: Sequence[bytes],
    expected: np.ndarray | None,
) -> CheckReport:
    """Compare the exported model with the ordinary way to predict, on both signatures.

    It proves that the written files alone, opened by another Python process with TensorFlow and without
    tlkit, give the same answers for encoded files of every accepted kind, for decoded pictures, for a batch
    of one and for an empty batch. Both sides run on the CPU, so that this process may hold the GPU.

    Args:
        saved_model: The folder to check.
        predict_bytes: Strings (N,) → scores or values.
        predict_pictures: Pictures, uint8 (N, h, w, 3) → scores or values.
        task: The task.
        classes: The names of the classes.
        examples: Image files; each format that they lack is made from them. May be empty.
        expected: The scores or values that the run gave for `examples`.

    Raises:
        ExportMismatch: An answer differs, or the model cannot be reloaded.
    """
    files = add_odd_formats(examples)
    pictures = [_decode(file) for _, file in files[-PICTURES:]]
    with tempfile.TemporaryDirectory(prefix="tlkit-export-") as temporary:
        fresh = _ask_fresh_process(saved_model, Path(temporary), [file for _, file in files], pictures)
    with tf.device("/CPU:0"):
        starts = range(0, len(files), BATCH)
        batches = [tf.constant([file for _, file in files[start : start + BATCH]]) for start in starts]
        by_bytes = _name(tf.concat([predict_bytes(batch) for batch in batches], axis=0), task, classes)
        tensors = [tf.constant(picture[None]) for picture in pictures]
        by_tensor = _name(tf.concat([predict_pictures(one) for one in tensors], axis=0), task, classes)
    none = {name: value[:0] for name, value in by_bytes.items()}
    _check_shapes(fresh, {"bytes": by_bytes, "tensor": by_tensor, "none": none})
    _check_labels(fresh, task, classes)
    key = "value" if task == "regress" else "scores"
    reference = by_bytes[key]
    scale = max(float(np.abs(reference).max()), 1e-6) if task == "regress" else 1.0
    names = [name for name, _ in files]
    return CheckReport(
        formats=dict(Counter(names)),
        difference=max(
            _compare(fresh["bytes"][key], reference, scale, TOLERANCE, names),
            _compare(fresh["one"][key], reference[:1], scale, TOLERANCE, ["a batch of one"]),
        ),
        tensor_difference=_compare(
            fresh["tensor"][key], by_tensor[key], scale, TOLERANCE, ["decoded picture"] * len(pictures)
        ),
        run_difference=None
        if expected is None or len(examples) == 0
        else _compare(
            fresh["bytes"][key][: len(examples)],
            np.asarray(expected, np.float32).reshape(reference[: len(examples)].shape),
            scale,
            GPU_TOLERANCE if tf.config.list_physical_devices("GPU") else TOLERANCE,
            names,
        ),
    )


def _ask_fresh_process(
    saved_model: Path, folder: Path, files: Sequence[bytes], pictures: Sequence[np.ndarray]
) -> dict[str, Answers]:
    (folder / "encoded").mkdir()
    for index, file in enumerate(files):
        (folder / "encoded" / f"{index:06d}").write_bytes(file)
    np.savez(
        folder / "pictures.npz",
        allow_pickle=False,
        **{f"{k:06d}": picture for k, picture in enumerate(pictures)},
    )
    # -P: the script's own folder is not searched for modules.
    command = [sys.executable, "-P", str(Path(fresh_process.__file__)), str(saved_model), str(folder)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    outcome = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if outcome.returncode != 0:
        reason = _last_error(outcome.stderr) or f"exit code {outcome.returncode}"
        raise ExportMismatch(f"A fresh process cannot use the exported model: {reason}")
    answers = {}
    for name in ("bytes", "one", "none", "tensor"):
        with np.load(folder / f"{name}.npz") as arrays:
            answers[name] = dict(arrays)
    return answers


def _last_error(stderr: str) -> str:
    """What a traceback ends in, as one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return " ".join(lines[starts[-1] :] if starts else lines[-1:])[:600]


def _name(scores: tf.Tensor, task: Task, classes: Sequence[str]) -> Answers:
    return {name: value.numpy() for name, value in name_answers(scores, task, classes).items()}


def _check_shapes(fresh: dict[str, Answers], reference: dict[str, Answers]) -> None:
    for asked, answers in reference.items():
        for name, value in answers.items():
            received = fresh[asked].get(name)
            if received is None or received.shape != value.shape:
                shape = None if received is None else received.shape
                raise ExportMismatch(
                    f"The exported model's {name!r} has shape {shape}, expected {value.shape}."
                )


def _check_labels(fresh: dict[str, Answers], task: Task, classes: Sequence[str]) -> None:
    """The names follow from the model's own scores, so that a tie within the tolerance is no mismatch."""
    if task == "regress":
        return
    for answers in fresh.values():
        named = _name(tf.constant(answers["scores"]), task, classes)
        for name in ("label", "top_k_labels"):
            wanted = [text.decode("utf-8") for text in named[name].ravel()]
            if answers[name].ravel().tolist() != wanted:
                raise ExportMismatch(f"The exported model's {name!r} does not follow from its scores.")


def _compare(
    received: np.ndarray, wanted: np.ndarray, scale: float, tolerance: float, names: Sequence[str]
) -> float:
    differences = np.abs(received - wanted).reshape(len(wanted), -1).max(axis=1) / scale
    worst = int(differences.argmax())
    # Not `> tolerance`: a NaN must fail, too.
    if not differences[worst] <= tolerance:
        raise ExportMismatch(
            f"The exported model answers differently for example {worst} ({names[worst]}): "
            f"by {differences[worst]:.2g}, allowed {tolerance:.0e}."
        )
    return float(differences[worst])


def _decode(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as picture:
        return np.asarray(picture.convert("RGB"))
