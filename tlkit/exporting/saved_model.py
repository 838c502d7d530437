"""Write a fine-tuned model as a SavedModel that takes raw image bytes."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tlkit.config import Task
from tlkit.errors import StorageError
from tlkit.exporting.checking import CheckReport, check_export
from tlkit.exporting.description import write_descriptions
from tlkit.exporting.signatures import IMAGE, IMAGE_BYTES, make_module
from tlkit.preprocessing import ImagePreprocessing
from tlkit.progress import spinner
from tlkit.results import writing_folder
from tlkit.zoo import ZooEntry


@dataclass(frozen=True)
class ExportReport:
    """What was written where, and what was compared before it was handed over."""

    path: Path
    signatures: tuple[str, ...]
    bytes: int
    check: CheckReport

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "signatures": list(self.signatures),
            "bytes": self.bytes,
            "check": {"examples": self.check.examples, **asdict(self.check)},
        }


def export_saved_model(
    model: keras.Model,
    preprocessing: ImagePreprocessing,
    to: str | Path,
    *,
    task: Task,
    classes: Sequence[str] | None,
    to_scores: Callable[[Any], Any],
    entry: ZooEntry,
    examples: Sequence[bytes] = (),
    expected: np.ndarray | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write `model` with its preprocessing as a SavedModel, and prove that it answers like the run.

    The folder appears at `to` only after a fresh process with plain TensorFlow has reloaded it and given
    the same answers, within 1e-5, for at least 32 files of every accepted kind (fewer only where `examples`
    are too few to make 32 of them).

    Args:
        model: Takes float32 (N, H, W, 3); gives logits (N, classes), or values (N,) or (N, k).
        preprocessing: The run's own.
        to: The folder to make. Serving stacks expect its last part to be a number.
        task: `classify`, `multilabel` or `regress`.
        classes: Names of the outputs, in order. None: they have none (a regression).
        to_scores: From what the model gives to probabilities, or to values in the target's unit.
        entry: The zoo entry that the backbone came from.
        examples: Image files of the run, as bytes. Without any, made-up pictures are compared.
        expected: The scores (N, classes) or values that the run gave for `examples`.
        overwrite: Replace an earlier export at `to`.

    Raises:
        StorageError: `to` is not empty, or cannot be written.
        ExportMismatch: The exported model answers differently. Nothing is left at `to`.
    """
    to = Path(to).expanduser().resolve()
    classes = tuple(classes or ())

    def predict_bytes(raw: tf.Tensor) -> tf.Tensor:
        return to_scores(model(preprocessing.from_raw(raw), training=False))

    def predict_pictures(pictures: tf.Tensor) -> tf.Tensor:
        samples = preprocessing.resize_batch(pictures)
        return to_scores(model(preprocessing.encode(samples), training=False))

    with writing_folder(to, overwrite=overwrite, replaceable=_is_saved_model) as folder:
        with spinner("Writing the SavedModel"), tempfile.TemporaryDirectory(prefix="tlkit-export-") as texts:
            assets = write_descriptions(Path(texts), preprocessing, task, classes, entry)
            module, signatures = make_module(
                model, preprocessing, task=task, classes=classes, to_scores=to_scores, assets=assets
            )
            _save(module, folder, signatures, to)
        with spinner("Checking the SavedModel in a fresh process"):
            check = check_export(
                folder,
                predict_bytes=tf.function(predict_bytes, input_signature=[IMAGE_BYTES]),
                predict_pictures=tf.function(predict_pictures, input_signature=[IMAGE]),
                task=task,
                classes=classes,
                examples=examples,
                expected=expected,
            )
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return ExportReport(to, tuple(signatures), size, check)


def _save(module: tf.Module, folder: Path, signatures: dict[str, Any], to: Path) -> None:
    try:
        with _quiet():
            tf.saved_model.save(module, str(folder), signatures)
    except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError) as error:
        raise StorageError(f"Cannot write {to}: {error.message}.") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow announces where it wrote assets; that is a temporary name which is of no use to anybody."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _is_saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").is_file()
