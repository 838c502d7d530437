"""From a run to a SavedModel that takes raw bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from tlkit.exporting import export_saved_model
from tlkit.heads import to_scores
from tlkit.workflows.evaluate import Outputs
from tlkit.workflows.run import Run, load_run

N_EXAMPLES = 32


def export_run(
    run: Run | str | Path, to: str | Path, overwrite: bool = False, pictures: Sequence[bytes] = ()
) -> Path:
    """Write a SavedModel with the preprocessing inside, and check it in a fresh process.

    Args:
        run: A run, or its folder.
        to: The folder to write; TensorFlow Serving wants its last part to be a version number.
        overwrite: Replace what is there.
        pictures: Encoded pictures to compare; by default examples of the run, or generated ones where the
            run's files are gone.

    Raises:
        StorageError: `to` is not empty, or cannot be written.
        ExportMismatch: The exported model answers differently; nothing is left at `to`.
    """
    run = run if isinstance(run, Run) else load_run(run)
    raw = list(pictures) or _pictures_of(run)
    scores = to_scores(run.config.task, run.outputs(run.preprocessing.from_raw(tf.constant(raw))))
    export_saved_model(
        run.model,
        run.preprocessing,
        Path(to),
        objective=run.config.objective,
        classes=run.classes,
        to_scores=partial(to_scores, run.config.task),
        entry=run.entry,
        examples=raw,
        expected=np.asarray(scores),
        overwrite=overwrite,
    )
    return Path(to)


def example_pictures(outputs: Mapping[str, Outputs]) -> list[bytes]:
    """Up to 32 encoded pictures of a run's last evaluated split; none where nothing was held out."""
    if not outputs:
        return []
    examples = list(outputs.values())[-1].examples
    if examples.paths is not None:
        return [Path(path).read_bytes() for path in examples.paths[:N_EXAMPLES]]
    assert examples.samples is not None
    return [tf.io.encode_png(sample).numpy() for sample in examples.samples[:N_EXAMPLES]]


def _pictures_of(run: Run) -> list[bytes]:
    """Pictures of the run's manifest that are still there; without any, generated ones."""
    paths = [Path(path) for path in pd.read_csv(run.folder.manifest, keep_default_na=False)["path"] if path]
    raw = [path.read_bytes() for path in paths if path.is_file()][:N_EXAMPLES]
    if raw:
        return raw
    size = run.preprocessing.image_size
    noise = np.random.default_rng(0).integers(0, 256, (N_EXAMPLES, size, size, 3), dtype="uint8")
    return [tf.io.encode_png(picture).numpy() for picture in noise]
