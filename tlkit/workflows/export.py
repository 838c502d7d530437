"""From a run to a SavedModel that takes raw bytes or strings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tlkit.data.records import Records
from tlkit.exporting import export_saved_model
from tlkit.heads import to_scores
from tlkit.places import require_local
from tlkit.preprocessing import TextPreprocessing
from tlkit.workflows.outputs import Outputs
from tlkit.workflows.run import Run, as_run

N_EXAMPLES = 32


def export_run(
    run: Run | str | Path,
    to: str | Path,
    overwrite: bool = False,
    client_preprocessing: bool = False,
    outputs: Mapping[str, Outputs] | None = None,
    *,
    trust: bool = False,
) -> Path:
    """Write a SavedModel with the preprocessing inside, and check it in a fresh process.

    Args:
        run: A run, or its folder.
        to: The folder to write; TensorFlow Serving wants its last part to be a version number.
        overwrite: Replace what is there.
        client_preprocessing: Export although the run has NLTK steps, which whoever calls the model must do.
        outputs: What the run gave for its held-out examples; some of them are compared. By default examples
            of the run's folder are, or made-up ones where those are gone.
        trust: Load a run's SavedModel whose operations read files or run code.

    Raises:
        ConfigError: The run has NLTK steps, and `client_preprocessing` is false; or `to` is on an object
            store.
        StorageError: `to` is not empty, or cannot be written.
        ExportMismatch: The exported model answers differently; nothing is left at `to`.
    """
    require_local(to, "An export")
    run = as_run(run, trust=trust)
    find = _pictures if run.entry.modality == "image" else _texts
    examples = find(run, outputs or {})
    export_saved_model(
        run.model,
        run.preprocessing,
        Path(to),
        objective=run.config.objective,
        classes=run.classes,
        to_scores=partial(to_scores, run.config.objective),
        entry=run.entry,
        examples=examples,
        expected=_scores(run, examples),
        overwrite=overwrite,
        client_preprocessing=client_preprocessing,
    )
    return Path(to)


def _scores(run: Run, examples: Sequence[Any]) -> np.ndarray | None:
    """What the run gives for these raw examples."""
    if not examples:
        return None
    ragged = run.config.task == "tokens"
    raw = tf.ragged.constant(examples, tf.string, ragged_rank=1) if ragged else tf.constant(examples)
    preprocessing = run.preprocessing
    if isinstance(preprocessing, TextPreprocessing):
        preprocessing = preprocessing.of_single_texts
    inputs = preprocessing.from_raw(raw)
    return np.asarray(to_scores(run.config.objective, run.outputs(inputs)))


def _pictures(run: Run, outputs: Mapping[str, Outputs]) -> list[bytes]:
    """Up to 32 encoded pictures: held-out ones, or those of the manifest, that are there as they were, or
    noise."""
    files: Iterable[tuple[str, Callable[[], bytes]]]
    if outputs:
        examples = list(outputs.values())[-1].examples
        if examples.samples is not None and examples.paths is None and examples.records is None:
            return [tf.io.encode_png(sample).numpy() for sample in examples.samples[:N_EXAMPLES]]
        files = ((name, partial(examples.read, number)) for number, name in enumerate(examples.ids))
    else:
        table = _manifest(run)
        table = table[table["path"] != ""]
        files = ((name, Path(path).read_bytes) for name, path in zip(table["id"], table["path"], strict=True))
    if found := _unchanged(islice(files, 10 * N_EXAMPLES)):
        return found
    size = run.config.preprocessing.image_size or 0
    noise = np.random.default_rng(0).integers(0, 256, (N_EXAMPLES, size, size, 3), dtype="uint8")
    return [tf.io.encode_png(picture).numpy() for picture in noise]


def _unchanged(files: Iterable[tuple[str, Callable[[], bytes]]]) -> list[bytes]:
    """Up to 32 of the contents, of those that are still what they were: ids begin with their hashes."""
    found: list[bytes] = []
    for name, read in files:
        hash_begins, _, _ = name.partition("-")
        with suppress(OSError):
            raw = read()
            if hash_begins and hashlib.sha256(raw).hexdigest().startswith(hash_begins):
                found.append(raw)
        if len(found) == N_EXAMPLES:
            break
    return found


def _texts(run: Run, outputs: Mapping[str, Outputs]) -> list[Any]:
    """Up to 32 held-out texts, or some of the manifest; as many as there are."""
    task = run.config.task
    texts: list[Any]
    if outputs:
        examples = list(outputs.values())[-1].examples
        records = examples.records
        samples: Any = examples.samples if records is None else _contents(records[:N_EXAMPLES])
        texts = [list(one) if task in ("pair", "embed", "tokens") else one for one in samples[:N_EXAMPLES]]
    else:
        table = _manifest(run)
        table = table[table["text"] != ""].head(N_EXAMPLES)
        texts = table["text"].tolist()
        if task in ("pair", "embed"):
            texts = table[["text", "text_b"]].to_numpy().tolist()
        if task == "tokens":
            texts = [str(text).split(" ") for text in texts]
    return [text for pair in texts for text in pair] if task == "embed" else texts


def _contents(records: Records) -> list[Any]:
    """The texts of records, as far as they are still there."""
    found: list[Any] = []
    for number in range(len(records)):
        with suppress(OSError):
            parts = records.parts(number)
            found.append(parts if len(parts) > 1 else parts[0])
    return found


def _manifest(run: Run) -> pd.DataFrame:
    """The examples of the run's folder; none for adapters, which have no folder."""
    if run.path.is_file():
        return pd.DataFrame({"id": [], "path": [], "text": [], "text_b": []}, dtype=str)
    return pd.read_csv(run.folder.manifest, keep_default_na=False, dtype=str)
