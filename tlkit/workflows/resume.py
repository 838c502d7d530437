"""Going on with a run that has stopped: its folder, its config, and what it had saved."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tlkit.config import RunConfig, dump, load_config
from tlkit.errors import ConfigError, DataError, StorageError
from tlkit.progress import make_console
from tlkit.results import RunFolder, Saves
from tlkit.results.folder import read_json
from tlkit.workflows.objects import PYTHON_MODEL, PythonObjects
from tlkit.workflows.prepare import Prepared

# What has no part in how a run learns.
MAY_CHANGE = (
    *("out", "trust", "data.source", "cache.limit"),
    *("training.save_every", "training.gradient_health", "export"),
)
EPOCHS = "training.epochs"
SAME = ("id", "split", "label")


@dataclass(frozen=True)
class Stopped:
    """A run that is gone on with. `saved` is its last save; None: it had saved nothing yet. `is_longer`: it
    has more epochs now."""

    folder: RunFolder
    config: RunConfig
    saved: dict[str, Any] | None
    is_longer: bool = False

    @property
    def seconds(self) -> float:
        """What its stages took until it was saved."""
        if self.saved is None:
            return 0.0
        records = self.saved["progress"]["records"]
        return float(self.saved["seconds"] + sum(record["seconds"] for record in records))

    @property
    def where(self) -> str:
        """Where it goes on, in words."""
        if self.saved is None:
            return "Nothing was saved yet: from the beginning."
        stage, position = self.saved["progress"]["begun"][-1]["name"], self.saved["position"]
        if position["ended"]:
            return f"Going on after stage {stage!r}."
        after = f", after step {position['step']}" if position["step"] else ""
        return f"Going on in stage {stage!r}, epoch {position['epoch'] + 1}{after}."

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


def read_stopped(folder: RunFolder, config: RunConfig, objects: PythonObjects) -> Stopped:
    """The run in a folder. To be read while the folder is locked, or complete.

    Args:
        folder: From `RunFolder.find`.
        config: What was asked for now. What it leaves open is as the run has it.
        objects: Python objects, which the run has to be given again.

    Raises:
        ConfigError: Something is asked for that the run has otherwise; another version of tlkit saved it.
        StorageError: No save of it can be read.
    """
    if not folder.asked.exists() and not folder.saves.exists():
        if folder.is_complete or not folder.stages.exists():  # or it stopped before it had begun
            return Stopped(folder, config, None)
        raise ConfigError(
            f"The run in {folder.path} left no saves: an older version of tlkit wrote it, or its state/ "
            "is gone. Start anew: --overwrite"
        )
    before = read_json(folder.asked) if folder.asked.exists() else {}
    own = load_config(folder.config).config
    if own.python != objects.names and not folder.is_complete:
        raise ConfigError(
            f"The run in {folder.path} was begun with Python objects ({', '.join(own.python) or 'none'}), "
            f"received {', '.join(objects.names) or 'none'}. Pass the same ones to "
            "tlkit.finetune(…, resume=True)."
        )
    epochs = _require_same(config, own, before, folder)
    if folder.is_complete:
        if epochs is not None:
            raise ConfigError(
                f"The run in {folder.path} is complete, and its saves are gone. To train its model further: "
                f"--backbone {folder.path}, with another --out"
            )
        return Stopped(folder, own, None)
    now = asked_for(config)
    changed = {key: now[key] for key in MAY_CHANGE if key in now}
    if epochs is not None:
        changed[EPOCHS] = epochs
    own = load_config(own, options={**changed, "out": str(folder.path)}).config
    own = own.model_copy(update={"trust": config.trust})
    saved, damaged = Saves(folder.saves).read()
    if saved is None and damaged:
        raise StorageError(
            f"No save of {folder.path} is whole: {'; '.join(damaged)}. Start anew: --overwrite"
        )
    for problem in damaged:
        make_console().print(f"{problem}: going on from the save before.", highlight=False, soft_wrap=True)
    if saved is not None and epochs is not None:
        _lengthen(saved, epochs)
    return Stopped(folder, own, saved, is_longer=epochs is not None)


def asked_for(config: RunConfig) -> dict[str, Any]:
    """What a config sets itself, by dotted path; a list is one value."""
    return _flat(config.model_dump(mode="json", exclude_unset=True))


def _read_rows(table: Any) -> pd.DataFrame:
    """A manifest as it is written."""
    return pd.read_csv(table, dtype=str, keep_default_na=False)


def _require_same(config: RunConfig, own: RunConfig, before: dict[str, Any], folder: RunFolder) -> int | None:
    """Raise the ConfigError for what differs; the number of epochs, if it is to be a larger one."""
    tree, now = dump(own), asked_for(config)
    unlike = {
        key: value
        for key, value in now.items()
        if key not in MAY_CHANGE
        and any(_differences(key, value, before[key] if key in before else _at(tree, key)))
        and any(_differences(key, value, _at(tree, key)))
    }
    epochs: int | None = unlike.pop(EPOCHS, None)
    if epochs is not None and epochs < (own.training.epochs or 0):
        unlike[EPOCHS] = epochs
    if unlike:
        found = [line for key, value in unlike.items() for line in _unlike(key, value, tree)]
        raise ConfigError(
            f"The run in {folder.path} goes on as it began: {', '.join(found)}. Leave that out, or start "
            "anew in another folder."
        )
    return epochs


def _unlike(key: str, asked: Any, tree: dict[str, Any]) -> Iterator[str]:
    """In words; a key below what is no table is told as what differs from that."""
    while (known := _at(tree, key)) is None and "." in key:
        parent, _, last = key.rpartition(".")
        if isinstance(_at(tree, parent), dict):
            break
        key, asked = parent, {last: asked}
    return _differences(key, asked, known)


def _at(tree: Any, key: str) -> Any:
    """The value at a dotted path, None where there is none. Names of classes may have dots, too."""
    while isinstance(tree, dict) and key not in tree:
        first, _, key = key.partition(".")
        tree = tree.get(first)
    return tree[key] if isinstance(tree, dict) else None


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path to value; a list is one."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def _differences(key: str, asked: Any, known: Any) -> Iterator[str]:
    """Where what was asked for is not what is known, which can say more: a stage of a list with its defaults,
    a model that Keras gave another number."""
    if isinstance(asked, list) and isinstance(known, list) and len(asked) == len(known):
        for number, (one, other) in enumerate(zip(asked, known, strict=True)):
            yield from _differences(f"{key}[{number}]", one, other)
    elif isinstance(asked, dict) and isinstance(known, dict):
        for name, value in asked.items():
            yield from _differences(f"{key}.{name}", value, known.get(name))
    elif isinstance(asked, str) and isinstance(known, str) and asked.startswith(PYTHON_MODEL):
        if not known.startswith(PYTHON_MODEL):
            yield f"{key} is {known!r}, not {asked!r}"
    elif asked != known:
        yield f"{key} is {_shown(known)}, not {_shown(asked)}"


def _shown(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) and value else repr(value)


def _lengthen(saved: dict[str, Any], epochs: int) -> None:
    """Give the current stage of a save and those to come more epochs."""
    current = saved["progress"]["begun"][-1]
    stages = (current, *saved["progress"]["waiting"])
    if any(stage["auto_freeze"] is not None for stage in stages):
        raise ConfigError("training.epochs: plan auto_freeze cannot be made longer once it has begun.")
    longest = max(stages, key=lambda stage: int(stage["epochs"]))
    if longest["epochs"] > epochs:
        raise ConfigError(
            f"training.epochs: stage {longest['name']!r} has {longest['epochs']}, and a run that goes on can "
            f"only have more, received {epochs}."
        )
    position = saved["position"]
    if position["epoch"] == current["epochs"] < epochs:
        position["ended"] = False
    for stage in stages:
        stage["epochs"] = epochs
