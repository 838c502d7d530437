"""A run that several workers share: one of them writes and speaks, and all have to start from the same."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tensorflow as tf

from tlkit.cluster import is_chief
from tlkit.config import RunConfig, dump
from tlkit.data import Dataset
from tlkit.devices import gather_numbers, is_multi_worker
from tlkit.errors import ConfigError, TrainingError
from tlkit.progress import silenced

OWN = ("out", "export", "trust")  # what each worker may have otherwise; also where its data is


@contextmanager
def only_chief_writes(config: RunConfig, overwrite: bool) -> Iterator[tuple[RunConfig, bool]]:
    """The config and `overwrite` that this process runs with.

    A worker that is not the chief does all that the chief does, because what a model does may need all of
    them. But it says nothing, exports nothing, and writes to a folder that goes with the process.
    """
    if is_chief(config.strategy):
        yield config, overwrite
        return
    scratch = Path(tempfile.mkdtemp(prefix="tlkit-worker-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    with silenced():
        yield config.model_copy(update={"out": str(scratch / "run"), "export": False}), False


def require_same_start(strategy: tf.distribute.Strategy, config: RunConfig, dataset: Dataset) -> None:
    """Raise the ConfigError where the workers of a run have different configs, or see different data."""
    if not is_multi_worker(strategy):
        return
    tree = {name: value for name, value in dump(config).items() if name not in OWN}
    tree["data"] = {name: value for name, value in tree["data"].items() if name != "source"}
    examples = dataset.manifest.table[["id", "label", "split"]]
    starts = {
        "configs": json.dumps(tree, sort_keys=True),
        "examples": examples.to_csv(index=False),
    }
    for what, text in starts.items():
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")  # exact in float64
        if len(set(gather_numbers(strategy, number))) > 1:
            raise ConfigError(
                f"The workers start from different {what}. Start all of them with the same config, on the "
                "same files (data.source may be another path), with the same version of tlkit."
            )


def meet_at_end(strategy: tf.distribute.Strategy) -> None:
    """Wait for the other workers, as far as they are there: who leaves takes the connections along."""
    with suppress(TrainingError):
        gather_numbers(strategy, 0)
