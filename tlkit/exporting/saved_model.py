"""Write a fine-tuned model as a SavedModel that takes raw bytes or strings."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tlkit.config.head import Objective
from tlkit.errors import ConfigError, StorageError
from tlkit.exporting.checking import CheckReport, check_export
from tlkit.exporting.description import describe, write_assets
from tlkit.exporting.pictures import picture_interface
from tlkit.exporting.readme import make_readme
from tlkit.exporting.signatures import Interface, add_assets, custom_ops, make_module, make_predict
from tlkit.exporting.texts import text_interface
from tlkit.places import require_local
from tlkit.preprocessing import ImagePreprocessing
from tlkit.progress import spinner
from tlkit.results import writing_folder
from tlkit.zoo import ZooEntry

if TYPE_CHECKING:
    from tlkit.preprocessing import TextPreprocessing

INTERFACES: dict[str, Callable[..., Interface]] = {"image": picture_interface, "text": text_interface}


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
    preprocessing: ImagePreprocessing | TextPreprocessing,
    to: str | Path,
    *,
    objective: Objective,
    classes: Sequence[str] | None,
    to_scores: Callable[[Any], Any],
    entry: ZooEntry,
    examples: Sequence[Any] = (),
    expected: np.ndarray | None = None,
    overwrite: bool = False,
    client_preprocessing: bool = False,
) -> ExportReport:
    """Write `model` with its preprocessing as a SavedModel, and prove that it answers like the run.

    The folder appears at `to` only after a fresh process with plain TensorFlow (and, for texts,
    tensorflow-text's operations) has reloaded it and given the same answers, within 1e-5, on every signature:
    for the examples, for odd ones (at least 32 together, except where `examples` are too few pictures to make
    as many), for a batch of one and for an empty batch.

    Args:
        model: From model inputs to logits, values or vectors: for pictures float32 (N, H, W, 3), for texts a
            dict of int32 (N, T); for `tokens` it gives (N, W, tags).
        preprocessing: The run's own.
        to: The folder to make. Serving stacks expect its last part to be a number.
        objective: What the head learned.
        classes: Names of the outputs, in order. None: they have none (a regression, vectors).
        to_scores: From what the model gives to probabilities, or to values in the target's unit.
        entry: The zoo entry that the backbone came from.
        examples: Examples of the run. Pictures: image files, as bytes. Texts: strings; for `pair` pairs of
            them; for `tokens` lists of words, or strings. They are what a client sends, that is after its
            own steps. Without any, made-up ones are compared.
        expected: What `to_scores` gave for `examples` in the run.
        overwrite: Replace an earlier export at `to`.
        client_preprocessing: Export although the preprocessing has steps that no SavedModel can hold; the
            export then says what the client must do.

    Raises:
        ConfigError: The preprocessing has such steps, and `client_preprocessing` is false; or `to` is on an
            object store.
        StorageError: `to` is not empty, or cannot be written.
        ExportMismatch: The exported model answers differently. Nothing is left at `to`.
    """
    require_local(to, "An export")
    to = Path(to).expanduser().resolve()
    classes = tuple(classes or ())
    steps = _client_steps(preprocessing, client_preprocessing)
    make_interface: Callable[..., Interface] = INTERFACES[entry.modality]
    interface = make_interface(preprocessing, make_predict(model, to_scores), objective, classes, examples)
    with writing_folder(to, overwrite=overwrite, replaceable=_is_saved_model) as folder:
        with spinner("Writing the SavedModel"), tempfile.TemporaryDirectory(prefix="tlkit-export-") as texts:
            module, signatures = make_module(model, interface)
            description = describe(
                interface, objective, classes, ops=custom_ops(signatures), client_steps=steps
            )
            add_assets(module, write_assets(Path(texts), description, entry))
            _save(module, folder, signatures, to)
            readme = make_readme(interface, description, entry)
            (folder / "README.md").write_text(readme, encoding="utf-8", newline="\n")
        with spinner("Checking the SavedModel in a fresh process"):
            check = check_export(folder, interface, objective=objective, classes=classes, expected=expected)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return ExportReport(to, tuple(signatures), size, check)


def _client_steps(preprocessing: Any, client_preprocessing: bool) -> tuple[str, ...]:
    """What a client must do to a text before it sends it; nothing for most runs."""
    clean = getattr(preprocessing, "clean", None)
    if clean is None:
        return ()
    steps = tuple(clean.describe())
    if not client_preprocessing:
        raise ConfigError(
            f"This run has NLTK steps ({'; '.join(steps)}), and no SavedModel can hold them: whoever calls "
            "it must do them first. Export with --client-preprocessing (client_preprocessing=True), and its "
            "README says how."
        )
    return steps


def _save(module: tf.Module, folder: Path, signatures: dict[str, Any], to: Path) -> None:
    try:
        with _quiet():
            tf.saved_model.save(module, str(folder), signatures)
    except tf.errors.OpError as error:  # for files it has a dozen: no room, no permission, too large, gone …
        reason = error.message.splitlines()[0].rstrip(".")
        raise StorageError(f"Cannot write {to}: {reason}.") from None


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
