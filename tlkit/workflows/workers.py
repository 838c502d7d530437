"""A run that several workers share: one of them writes and speaks, and all have to start from the same."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import tensorflow as tf

from tlkit.cluster import find_cluster, is_chief
from tlkit.config import RunConfig, dump
from tlkit.data import Dataset
from tlkit.devices import make_strategy
from tlkit.errors import ConfigError, StorageError, TrainingError
from tlkit.exchange import fingerprint, gather, gather_bytes, is_multi_worker
from tlkit.progress import silenced
from tlkit.results import RunFolder
from tlkit.results.writing import storage_error

OWN = ("out", "trust")  # what each worker may have otherwise; also where its data is
# What a run writes, and does not need to go on.
NOT_SENT = {"export", "tensorboard", "model.keras", "outputs.npz", "predictions.csv", ".lock"}
SENT_AT_ONCE = 2**25  # bytes


@contextmanager
def only_chief_writes(config: RunConfig, overwrite: bool, resume: bool) -> Iterator[tuple[RunConfig, bool]]:
    """The config and `overwrite` that this process runs with.

    A worker that is not the chief does all that the chief does, because what a model does may need all of
    them. But it says nothing, exports nothing, and writes to a folder that goes with the process. Where a run
    goes on, the chief sends what that folder has to hold: the other machines need not see its own.
    """
    if find_cluster(config.strategy) is None:
        yield config, overwrite
        return
    chief = is_chief(config.strategy)
    with nullcontext() if chief else silenced():
        strategy = make_strategy(config.strategy)
        if len({tuple(each) for each in gather(strategy, [resume, config.out is not None])}) > 1:
            raise ConfigError(
                "Only some of the workers were given --resume, or --out. Start all of them alike."
            )
        goes_on = resume and config.out is not None
        if chief:
            if goes_on:
                send_folder(strategy, RunFolder.find(str(config.out)))
            yield config, overwrite
            return
        scratch = Path(tempfile.mkdtemp(prefix="tlkit-worker-"))
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        if goes_on:
            receive_folder(strategy, scratch / "run")
        yield config.model_copy(update={"out": str(scratch / "run")}), False


def send_folder(strategy: tf.distribute.Strategy, run: RunFolder | None) -> None:
    """Give the other workers what a run needs to go on: nothing, where there is no run yet.

    Raises:
        StorageError: A file of it cannot be read.
    """
    if run is None:
        gather_bytes(strategy, b"[]")
        return
    not_sent = NOT_SENT - ({"model.keras"} if run.is_complete else set())
    try:
        files = [
            (str(file.relative_to(run.path)), file.stat().st_size)
            for file in sorted(run.path.rglob("*"))
            if file.is_file() and not not_sent.intersection(file.relative_to(run.path).parts)
        ]
        gather_bytes(strategy, json.dumps(files).encode())
        for name, size in files:
            with (run.path / name).open("rb") as file:
                for _ in range(0, size, SENT_AT_ONCE):
                    gather_bytes(strategy, file.read(SENT_AT_ONCE))
    except OSError as error:
        raise StorageError(f"Cannot read {error.filename or run.path}: {error.strerror}.") from None


def receive_folder(strategy: tf.distribute.Strategy, folder: Path) -> None:
    """Write down what the chief sends.

    Raises:
        StorageError: There is no room for it.
    """
    try:
        for name, size in json.loads(gather_bytes(strategy, b"")[0]):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("wb") as file:
                for _ in range(0, size, SENT_AT_ONCE):
                    file.write(gather_bytes(strategy, b"")[0])
    except OSError as error:
        raise storage_error(folder, error) from error


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
        if len(set(gather(strategy, fingerprint(text.encode())))) > 1:
            raise ConfigError(
                f"The workers start from different {what}. Start all of them with the same config, on the "
                "same files (data.source may be another path), with the same version of tlkit."
            )


def meet_at_end(strategy: tf.distribute.Strategy, is_chief: bool) -> None:
    """Wait for the other workers: who leaves takes the connections along.

    Raises:
        TrainingError: The chief, which evaluates and exports, did not come to its end.
    """
    with suppress(TrainingError) if is_chief else nullcontext():
        gather(strategy, 0)
    with suppress(TrainingError):  # so that nobody leaves while another one still waits above
        gather(strategy, 0)
