"""The run folder: where each file of a run is, how a run's folder is made, and how far the run is."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import filelock

from tlkit.errors import ConfigError, StorageError
from tlkit.places import require_local
from tlkit.results.record import Result
from tlkit.results.writing import check_free, storage_error, write_json, write_text, writing_folder

Status = Literal["running", "complete", "interrupted", "failed"]
LOCK = ".lock"
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
STATUSES = ("running", "complete", "interrupted", "failed")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. `result.json` is written last: where it is, the run is complete."""

    path: Path

    @classmethod
    def create(
        cls, out: str | Path | None, data_name: str, backbone: str, overwrite: bool = False
    ) -> RunFolder:
        """Make the folder of a new run, with `state.json` in it.

        Args:
            out: Where; None: `runs/<data_name>-<backbone>-<n>` with the next free number.
            data_name: The sample's name, or the path of the data; its last part is used.
            backbone: The zoo entry's name, or an earlier run's folder; its last part is used.
            overwrite: Replace an earlier run. The old folder goes only when the new one is in its place, and
                only a folder that holds a run, to which nobody writes, is ever replaced.

        Raises:
            StorageError: The folder is not empty, is not a run, is in use, or cannot be made.
        """
        if out is None:
            return cls(_next_folder(Path("runs"), f"{_slug(data_name)}-{_slug(backbone)}")).start()
        path = Path(out).expanduser()
        if not path.name:
            path = path.resolve()
        with writing_folder(path, overwrite=overwrite, replaceable=_is_idle_run) as temporary:
            cls(temporary).start()
        return cls(path)

    @staticmethod
    def require_free(out: str | Path | None, overwrite: bool = False) -> None:
        """Raise what `create` would raise for a folder that is taken or is an address, before any work."""
        if out is not None:
            require_local(out, "A run folder")
            check_free(Path(out).expanduser(), overwrite, _is_idle_run)

    @classmethod
    def find(cls, out: str | Path) -> RunFolder | None:
        """The folder of a run; None where there is nothing yet, or an empty folder.

        Raises:
            ConfigError: What is there is not a run, or `out` is an address.
        """
        require_local(out, "A run folder")
        path = Path(out).expanduser()
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of an existing run, complete or not.

        Raises:
            ConfigError: There is no run at `path`.
        """
        require_local(path, "A run")
        path = Path(path).expanduser()
        if not path.is_dir():
            raise ConfigError(
                f"{path} is not a run folder: {'it is a file' if path.exists() else 'no such folder'}."
            )
        if not is_run(path):
            raise ConfigError(f"{path} is not a run folder: it has no state.json of a run. See: tlkit runs")
        return cls(path)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def zoo_entry(self) -> Path:
        return self.path / "zoo_entry.yaml"

    @property
    def labels(self) -> Path:
        """Class names, one a line, in the order of the scores; absent for a regression."""
        return self.path / "labels.txt"

    @property
    def tokenizer(self) -> Path:
        """The folder of the vocabulary, of a run on texts."""
        return self.path / "tokenizer"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.csv"

    @property
    def data_report(self) -> Path:
        return self.path / "data_report.csv"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def outputs(self) -> Path:
        return self.path / "outputs.npz"

    @property
    def model(self) -> Path:
        return self.path / "model.keras"

    @property
    def adapters(self) -> Path:
        """Adapters and head of a run with plan `lora`: with the backbone, all that the model is."""
        return self.path / "adapters.safetensors"

    @property
    def stages(self) -> Path:
        return self.path / "stages"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def saves(self) -> Path:
        """The folder of what a resume needs, until the run is complete."""
        return self.path / "state"

    @property
    def asked(self) -> Path:
        """What the config set that the run began with, by dotted path; the rest were defaults. It stays when
        the run is complete, and the saves go."""
        return (self.path if self.is_complete else self.saves) / "asked.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While the block runs, no other run uses the folder. The lock of a process that died is none.

        Raises:
            StorageError: Another run does, or the folder cannot be written to, or has no locks.
        """
        # Not a file that is there while somebody works: a process that dies would leave it behind.
        lock = filelock.FileLock(self.path / LOCK, timeout=0, fallback_to_soft=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise StorageError(f"{self.path} is in use: another run writes to it.") from None
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                raise StorageError(
                    f"{self.path} is on a file system without locks ({error.strerror}), so that two runs "
                    "could write to it at once. Name a folder on another one."
                ) from None
            raise storage_error(self.path, error) from error
        try:
            yield
        finally:
            lock.release()

    def start(self) -> RunFolder:
        self.write_state("running")
        return self

    def write_state(self, status: Status, stage: str | None = None) -> None:
        """Note how far the run is. `stage` is the one that runs, or ran last; `updated` is UTC."""
        updated = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.state, {"status": status, "stage": stage, "updated": updated})

    def read_state(self) -> dict[str, Any]:
        """`{"status", "stage", "updated"}`.

        Raises:
            ConfigError: There is none, or it is not what a run writes.
        """
        state = read_json(self.state)
        if state.get("status") not in STATUSES:
            raise ConfigError(f"{self.state}: no run wrote this (status {state.get('status')!r}).")
        return state

    def complete(self, result: Result) -> None:
        """Write `result.json`: the run's last step."""
        stage = result.stages[-1].name if result.stages else None
        self.write_state("complete", stage)
        if self.asked.exists():
            write_text(self.path / self.asked.name, self.asked.read_text(encoding="utf-8"))
        write_json(self.result, result.to_dict())
        shutil.rmtree(self.saves, ignore_errors=True)

    @property
    def is_complete(self) -> bool:
        return self.result.is_file()


def is_run(path: Path) -> bool:
    """Whether a run wrote this folder: a `state.json` with a status that only runs have."""
    try:
        RunFolder(path).read_state()
    except (ConfigError, StorageError):
        return False
    return True


def _is_idle_run(path: Path) -> bool:
    """Whether a folder is a run's. Raises StorageError where another run writes to it."""
    if not is_run(path):
        return False
    with RunFolder(path).locked():
        pass
    return True


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        StorageError: The file cannot be read.
        ConfigError: It does not hold a JSON object.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON ({error}).") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a JSON object, received {type(tree).__name__}.")
    return tree


def _next_folder(parent: Path, stem: str) -> Path:
    """Make `<parent>/<stem>-<n>`. `mkdir` decides between two runs that want the same number."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = [re.fullmatch(rf"{re.escape(stem)}-(\d+)", path.name) for path in parent.iterdir()]
        number = max((int(match[1]) for match in taken if match), default=0)
        while True:
            number += 1
            path = parent / f"{stem}-{number}"
            try:
                path.mkdir()
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise storage_error(parent / f"{stem}-…", error) from error


def _slug(name: str) -> str:
    """The last part of a path or a name, without its suffix, with what file names tolerate everywhere."""
    stem = Path(name).name or Path(name).resolve().name
    stem = re.sub(r"\.(csv|parquet|yaml)$", "", stem, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "_", stem).strip("._-")[:60] or "data"
