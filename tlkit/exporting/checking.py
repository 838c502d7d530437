"""The proof that an exported model answers like the run: reload it in a fresh process and compare."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tlkit.config.head import Objective
from tlkit.errors import ExportMismatch
from tlkit.exporting import fresh_process
from tlkit.exporting.answers import name_answers
from tlkit.exporting.signatures import Batch, Interface

TOLERANCE = 1e-5
GPU_TOLERANCE = 1e-2  # TensorFloat-32 keeps 10 bits of each factor's mantissa: 2^-10 per product
MEASURED = {"regress": "value", "embed": "vector"}  # what the run's own scores are called; else `scores`

Answers = dict[str, np.ndarray]


@dataclass(frozen=True)
class CheckReport:
    """What was compared. Differences are the largest ones, absolute for scores and vectors, relative to the
    largest value for a regression. `differences` are to the answers of this process, for each signature;
    `run_difference` is to those that the run gave before (None where there were none)."""

    formats: dict[str, int]
    differences: dict[str, float]
    run_difference: float | None

    @property
    def examples(self) -> int:
        return sum(self.formats.values())


def check_export(
    saved_model: Path,
    interface: Interface,
    *,
    objective: Objective,
    classes: Sequence[str],
    expected: np.ndarray | None,
) -> CheckReport:
    """Compare the exported model with the same functions in this process, and with what the run said.

    It proves that the written files alone, opened by another Python process with TensorFlow and without
    tlkit, give the same answers on every signature, for odd examples, for a batch of one and for an empty
    batch. Both sides run on the CPU, so that this process may hold the GPU.

    Args:
        saved_model: The folder to check.
        interface: What was exported, and what to try it with.
        objective: What the head learned.
        classes: The names of the classes.
        expected: The scores, values or vectors that the run gave for its first examples; for `tokens` the
            scores of all tags (n, W, tags).

    Raises:
        ExportMismatch: An answer differs, or the model cannot be reloaded.
    """
    with tempfile.TemporaryDirectory(prefix="tlkit-export-") as temporary:
        asked = _ask_fresh_process(saved_model, Path(temporary), interface)
        received: dict[str, list[Answers]] = {}
        differences: dict[str, float] = {}
        for name, signature in interface.signatures.items():
            with tf.device("/CPU:0"):
                function = signature.trace()
                wanted = [_as_arrays(function(**batch.inputs)) for batch in signature.batches]
            received[name] = [
                _read_answers(path, like) for path, like in zip(asked[name], wanted, strict=True)
            ]
            differences[name] = _compare_batches(
                signature.batches, received[name], wanted, objective, classes
            )
    measured = interface.signatures[interface.measured]
    names = [name for batch in measured.batches[:-2] for name in batch.names]
    return CheckReport(
        formats=dict(Counter(names)),
        differences=differences,
        run_difference=None
        if expected is None or len(expected) == 0
        else _compare_with_run(received[interface.measured], np.asarray(expected), objective, names),
    )


def _ask_fresh_process(saved_model: Path, folder: Path, interface: Interface) -> dict[str, list[Path]]:
    """The files with the answers, for each signature in the order of its batches."""
    answers: dict[str, list[Path]] = {}
    for name, signature in interface.signatures.items():
        (folder / name).mkdir()
        answers[name] = [folder / name / f"{k:03d}.answers.npz" for k in range(len(signature.batches))]
        for k, batch in enumerate(signature.batches):
            arrays: dict[str, Any] = {
                key: np.frombuffer(tf.io.serialize_tensor(value).numpy(), np.uint8)
                for key, value in batch.inputs.items()
            }
            np.savez(folder / name / f"{k:03d}.npz", **arrays)
    # -P: the script's own folder is not searched for modules.
    command = [sys.executable, "-P", fresh_process.__file__, str(saved_model), str(folder)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    outcome = subprocess.run(
        [*command, *interface.modules],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if outcome.returncode != 0:
        reason = _last_error(outcome.stderr) or f"exit code {outcome.returncode}"
        raise ExportMismatch(f"A fresh process cannot use the exported model: {reason}")
    return answers


def _last_error(stderr: str) -> str:
    """What a traceback ends in, as one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return " ".join(lines[starts[-1] :] if starts else lines[-1:])[:600]


def _read_answers(path: Path, like: Answers) -> Answers:
    with np.load(path) as arrays:
        return {
            name: tf.io.parse_tensor(arrays[name].tobytes(), tf.as_dtype(like[name].dtype)).numpy()
            for name in arrays.files
        }


def _as_arrays(answers: dict[str, tf.Tensor]) -> Answers:
    return {name: value.numpy() for name, value in answers.items()}


def _compare_batches(
    batches: Sequence[Batch],
    received: Sequence[Answers],
    wanted: Sequence[Answers],
    objective: Objective,
    classes: Sequence[str],
) -> float:
    """The largest difference. Where the answers' names follow from scores, they follow from the model's own,
    so that a tie within the tolerance is no mismatch."""
    values = [answers["value"] for answers in wanted if "value" in answers]
    scale = _largest(values) if values else 1.0
    worst, first = 0.0, 0
    for batch, got, want in zip(batches, received, wanted, strict=True):
        _check_shapes(got, want)
        if objective in ("classify", "multilabel"):
            want = want | {
                name: value
                for name, value in _as_arrays(
                    name_answers(tf.constant(got["scores"]), objective, classes)
                ).items()
                if value.dtype == object
            }
        for name, value in want.items():
            if value.dtype.kind == "f":
                worst = max(worst, _difference(got[name], value, scale, TOLERANCE, first, batch.names))
            elif got[name].tolist() != value.tolist():
                raise ExportMismatch(
                    f"The exported model's {name!r} is {got[name].ravel().tolist()[:20]}, "
                    f"expected {value.ravel().tolist()[:20]}."
                )
        first += len(batch.names)
    return worst


def _compare_with_run(
    received: Sequence[Answers], expected: np.ndarray, objective: Objective, names: Sequence[str]
) -> float:
    scale = _largest([expected]) if objective == "regress" else 1.0
    tolerance = GPU_TOLERANCE if tf.config.list_physical_devices("GPU") else TOLERANCE
    worst, first = 0.0, 0
    for answers in received:
        got = answers[MEASURED.get(objective, "scores")]
        wanted = expected[first : first + len(got)].astype(np.float32)
        got = got[: len(wanted)]
        if objective == "tokens":  # the score of each word's tag; 0 where the model saw no word
            width = min(got.shape[1], wanted.shape[1])
            got = got[:, :width]
            wanted = np.where(got > 0, wanted[:, :width].max(axis=-1), 0.0)
        if len(wanted):
            wanted = wanted.reshape(got.shape)
            worst = max(worst, _difference(got, wanted, scale, tolerance, first, names[first:]))
        first += len(wanted)
    return worst


def _largest(values: Sequence[np.ndarray]) -> float:
    return max(1e-6, *(float(np.abs(value).max()) for value in values if value.size))


def _check_shapes(received: Answers, wanted: Answers) -> None:
    shapes, expected = ({name: v.shape for name, v in answers.items()} for answers in (received, wanted))
    if shapes != expected:
        raise ExportMismatch(f"The exported model's answers have the shapes {shapes}, expected {expected}.")


def _difference(
    received: np.ndarray,
    wanted: np.ndarray,
    scale: float,
    tolerance: float,
    first: int,
    names: Sequence[str],
) -> float:
    """The largest difference, of examples that are numbered from `first` on."""
    if wanted.size == 0:
        return 0.0
    differences = np.abs(received - wanted).reshape(len(wanted), -1).max(axis=1) / scale
    worst = int(differences.argmax())
    # Not `> tolerance`: a NaN must fail, too.
    if not differences[worst] <= tolerance:
        raise ExportMismatch(
            f"The exported model answers differently for example {first + worst} ({names[worst]}): "
            f"by {differences[worst]:.2g}, allowed {tolerance:.0e}."
        )
    return float(differences[worst])
