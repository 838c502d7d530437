"""Going on with a run that has stopped: its folder, its config, and what it had saved."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tlkit.config import RunConfig, dump, flatten, load_config
from tlkit.errors import ConfigError, DataError
from tlkit.progress import make_console
from tlkit.results import RunFolder, Saves
from tlkit.results.folder import read_json
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.prepare import Prepared

# What has no part in how a run learns.
MAY_CHANGE = ("out", "trust", "training.save_every", "cache.limit")
EPOCHS = "training.epochs"
SAME = ("id", "split", "label")


@dataclass(frozen=True)
class Stopped:
    """A run that is gone on with. `saved` is its last save; None: it had saved nothing yet."""

    folder: RunFolder
    config: RunConfig
    saved: dict[str, Any] | None

    @property
    def seconds(self) -> float:
        """What its stages took until it was saved."""
        if self.saved is None:
            return 0.0
        records = self.saved["progress"]["records"]
        return float(self.saved["seconds"] + sum(record["seconds"] for record in records))

    def require_same_data(self, prepared: Prepared) -> None:
        """Raise the DataError for examples that are not those that the run began with."""
        if self.saved is None:
            return
        before = _read_rows(self.folder.manifest)
        now = _read_rows(io.StringIO(prepared.dataset.manifest.table.to_csv(index=False)))
        if before[[*SAME]].equals(now[[*SAME]]):
            return
        known, found = set(before["hash"]), set(now["hash"])
        raise DataError(
            f"{prepared.config.data.source} is not what the run began with: of {len(before):,} examples "
            f"{len(known - found):,} are gone or changed, {len(found - known):,} are new, and the others may "
            "be in other splits or have other labels. Put the data back, or start anew: --overwrite"
        )


def find_stopped(config: RunConfig, objects: PythonObjects) -> Stopped | None:
    """The run in the folder `config.out`; None where there is none yet.

    Args:
        config: What was asked for now. What it leaves open is as the run has it.
        objects: Python objects, which the run has to be given again.

    Raises:
        ConfigError: No folder is named, or something is asked for that the run has otherwise.
    """
    if config.out is None:
        raise ConfigError("--resume goes on with the run in a folder: name it with --out RUN.")
    path = Path(config.out).expanduser()
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    folder = RunFolder.open(path)
    if not folder.asked.exists():  # it stopped before it had begun
        return Stopped(folder, config, None)
    own = load_config(folder.config).config
    if own.python != objects.names and not folder.is_complete:
        raise ConfigError(
            f"The run in {folder.path} was begun with Python objects ({', '.join(own.python) or 'none'}), "
            f"received {', '.join(objects.names) or 'none'}. Pass the same ones to "
            "tlkit.finetune(…, resume=True)."
        )
    epochs = _require_same(config, own, read_json(folder.asked), folder)
    training = own.training if epochs is None else own.training.model_copy(update={"epochs": epochs})
    update = {"out": str(path), "trust": config.trust, "training": training}
    saved, damaged = Saves(folder.saves).read()
    for problem in damaged:
        make_console().print(f"{problem}: going on from the save before.", highlight=False, soft_wrap=True)
    if saved is not None and epochs is not None:
        _lengthen(saved, epochs)
    return Stopped(folder, own.model_copy(update=update), saved)


def asked_for(config: RunConfig) -> dict[str, Any]:
    """What a config sets itself, by dotted path."""
    return flatten(config.model_dump(mode="json", exclude_unset=True))


def _read_rows(table: Any) -> pd.DataFrame:
    """A manifest as it is written."""
    return pd.read_csv(table, dtype=str, keep_default_na=False)


def _require_same(config: RunConfig, own: RunConfig, before: dict[str, Any], folder: RunFolder) -> int | None:
    """Raise the ConfigError for what differs; the number of epochs, if it is to be a larger one."""
    resolved, now = flatten(dump(own)), asked_for(config)
    unlike = {
        key: value
        for key, value in now.items()
        if key not in MAY_CHANGE
        and value != before.get(key, resolved.get(key))
        and value != resolved.get(key)
    }
    epochs: int | None = unlike.pop(EPOCHS, None)
    if epochs is not None and epochs < (own.training.epochs or 0):
        unlike[EPOCHS] = epochs
    if unlike:
        differences = ", ".join(
            f"{key} is {resolved.get(key)!r}, not {value!r}" for key, value in unlike.items()
        )
        raise ConfigError(
            f"The run in {folder.path} goes on as it began: {differences}. Leave that out, or start anew in "
            "another folder."
        )
    return epochs


def _lengthen(saved: dict[str, Any], epochs: int) -> None:
    """Give the current stage of a save and those to come more epochs."""
    current = saved["progress"]["begun"][-1]
    if any(stage["auto_freeze"] is not None for stage in (current, *saved["progress"]["waiting"])):
        raise ConfigError("training.epochs: plan auto_freeze cannot be made longer once it has begun.")
    position = saved["position"]
    if position["epoch"] == current["epochs"] < epochs:
        position["ended"] = False
    for stage in (current, *saved["progress"]["waiting"]):
        stage["epochs"] = max(epochs, stage["epochs"])
