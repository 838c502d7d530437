"""Reading runs back: one result, or a table of all runs in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tlkit.errors import ConfigError, StorageError, TlkitError
from tlkit.places import require_local
from tlkit.results.folder import RunFolder, is_run, read_json
from tlkit.results.record import Result

MAIN_METRIC = {"classify": "accuracy", "multilabel": "f1_macro", "regress": "mae"}
"""The test metric that stands for a run in a table."""


@dataclass(frozen=True)
class RunRow:
    """One run in the table. What a run does not say, or says in a way that cannot be read, is None.

    `date` is when the run last wrote its state, in UTC.
    """

    name: str
    path: str
    backbone: str | None
    task: str | None
    data: str | None
    metric: str | None
    value: float | None
    minutes: float | None
    status: str
    date: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_result(path: str | Path) -> Result:
    """The result of a complete run.

    Raises:
        ConfigError: There is no run at `path`, it is not complete, or its result cannot be read.
    """
    run = RunFolder.open(path)
    if not run.is_complete:
        raise ConfigError(
            f"{run.path} is not a complete run: it has no result.json, {_how_far(run.read_state())}."
        )
    try:
        return Result.from_dict(read_json(run.result))
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{run.result}: not the result of a run ({error!r}).") from None


def list_runs(folder: str | Path) -> list[RunRow]:
    """The runs in `folder`, or `folder` itself when it is one; the latest first.

    Incomplete and damaged runs are listed, too: their status says so.

    Raises:
        StorageError: `folder` cannot be read.
        ConfigError: It is on an object store.
    """
    require_local(folder, "A folder of runs")
    folder = Path(folder).expanduser()
    try:
        candidates = (
            [folder] if is_run(folder) else sorted(item for item in folder.iterdir() if item.is_dir())
        )
    except OSError as error:
        raise StorageError(f"Cannot list the runs in {folder}: {error.strerror}.") from None
    rows = [_row(RunFolder(path)) for path in candidates if _resembles_run(path)]
    return sorted(rows, key=lambda row: row.date or "", reverse=True)


def _how_far(state: Mapping[str, Any]) -> str:
    stage = f" in stage {state['stage']!r}" if state.get("stage") else ""
    return f"its last state is {state['status']!r}{stage}"


def _resembles_run(path: Path) -> bool:
    run = RunFolder(path)
    return not path.name.startswith(".") and (run.state.is_file() or run.result.is_file())


def _row(run: RunFolder) -> RunRow:
    config = _read(run.config)
    data = config.get("data")
    source = data.get("source") if isinstance(data, Mapping) else None
    task = _text(config.get("task"))
    metric = MAIN_METRIC.get(task or "")
    result, status = _outcome(run)
    value = result.metrics.get("test", {}).get(metric) if result and metric else None
    return RunRow(
        name=run.path.resolve().name,
        path=str(run.path),
        backbone=_text(config.get("backbone")),
        task=task,
        data=_text(source),
        metric=metric,
        value=float(value) if isinstance(value, int | float) else None,
        minutes=round(result.seconds / 60, 1) if result else None,
        status=status,
        date=_date(run),
    )


def _outcome(run: RunFolder) -> tuple[Result | None, str]:
    """The result where there is one, and the status: one that a run writes, or `damaged`."""
    try:
        if run.is_complete:
            return load_result(run.path), "complete"
        status: str = run.read_state()["status"]
    except TlkitError:
        return None, "damaged"
    # The state says so just before the result is written: the run was killed in between.
    return None, "interrupted" if status == "complete" else status


def _date(run: RunFolder) -> str | None:
    try:
        return _text(run.read_state().get("updated"))
    except TlkitError:
        seconds = run.path.stat().st_mtime
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
