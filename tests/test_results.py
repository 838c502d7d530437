"""The run folder: whole files or none, folders that are never lost, and tables that survive broken runs."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tlkit.errors import ConfigError, StorageError
from tlkit.results import (
    Result,
    RunFolder,
    StageRecord,
    environment,
    list_runs,
    load_result,
    write_csv,
    write_json,
    write_npz,
    write_text,
    writing,
    writing_folder,
)

STAGE = StageRecord(
    name="head",
    trained_groups=["head"],
    trainable_params=2562,
    epochs_run=3,
    seconds=12.5,
    frozen_unchanged=True,
    batch_norm="frozen",
    learning_rate=1e-3,
)
RESULT = Result({"test": {"accuracy": 0.9}}, (STAGE,), 90.0, {"python": "3.11"})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def a_full_disk(free: int = 1000) -> Iterator[None]:
    """No file can grow beyond `free` bytes: a write fails half-way, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_text(path, "old")
    with a_full_disk(), pytest.raises(StorageError, match=r"Cannot write .*history\.csv: File too large"):
        write_text(path, "new" * 10_000)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["history.csv"]


def test_an_error_while_writing_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(KeyError), writing(path) as temporary:  # noqa: PT012
        assert temporary.suffix == ".keras"
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["model.keras"]


def test_a_path_through_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="Cannot write"):
        write_text(tmp_path / "file" / "a.txt", "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        write_text(tmp_path / "a.txt", "x")


def test_json_is_strict_and_knows_numpy(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": np.float32(0.5), "b": [np.int64(3), float("nan")], "c": np.inf, "d": np.arange(2)})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [3, None], "c": None, "d": [0, 1]}


def test_tables_and_arrays_come_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "score": [0.5, 0.25]})
    write_csv(tmp_path / "a.csv", frame)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), frame)
    write_npz(tmp_path / "a.npz", {"ids": np.array(["a", "ü"]), "logits": np.ones((2, 3), np.float32)})
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["ids"].tolist() == ["a", "ü"]
        assert arrays["logits"].dtype == np.float32


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "deep" / "sm") as temporary:
        (temporary / "a").write_text("1")
        assert not (tmp_path / "deep" / "sm").exists()
    assert (tmp_path / "deep" / "sm" / "a").read_text() == "1"
    with pytest.raises(StorageError, match="not empty"), writing_folder(tmp_path / "deep" / "sm"):
        pass
    with pytest.raises(KeyError), writing_folder(tmp_path / "deep" / "sm", overwrite=True) as temporary:  # noqa: PT012
        (temporary / "b").write_text("2")
        raise KeyError
    assert names(tmp_path / "deep" / "sm") == ["a"]
    with writing_folder(tmp_path / "deep" / "sm", overwrite=True) as temporary:
        (temporary / "b").write_text("2")
    assert names(tmp_path / "deep" / "sm") == ["b"]
    assert names(tmp_path / "deep") == ["sm"]


def test_a_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sm"
    path.mkdir()
    (path / "a").write_text("1")
    replace = Path.replace

    def fail_for_the_new_one(source: Path, target: Path) -> Path:
        if source.suffix == ".partial":
            raise PermissionError(13, "Permission denied")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new_one)
    with (
        pytest.raises(StorageError, match="Permission denied"),
        writing_folder(path, overwrite=True) as temporary,
    ):
        (temporary / "b").write_text("2")
    assert names(path) == ["a"]
    assert names(tmp_path) == ["sm"]


def test_runs_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [RunFolder.create(None, "my data/photos/", "efficientnet_lite0").path.name for _ in range(2)]
    assert made == ["photos-efficientnet_lite0-1", "photos-efficientnet_lite0-2"]
    (tmp_path / "runs" / "photos-efficientnet_lite0-10").mkdir()
    assert RunFolder.create(None, "photos", "efficientnet_lite0").path.name == "photos-efficientnet_lite0-11"
    assert RunFolder.create(None, "a b.csv", "runs/photos-x-1").path.name == "a_b-photos-x-1-1"


def test_runs_started_at_once_get_a_folder_each(tmp_path: Path) -> None:
    code = (
        "from tlkit.results import RunFolder\n"
        "for _ in range(20): print(RunFolder.create(None, 'd', 'b').path)"
    )
    root = Path(__file__).parents[1]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for _ in range(2)
    ]
    paths = [line for run in runs for line in run.communicate()[0].split()]
    assert len(paths) == len(set(paths)) == 40


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = RunFolder.create(tmp_path / "run", "d", "b")
    with pytest.raises(StorageError, match=r"not empty.*--overwrite"):
        RunFolder.create(run.path, "d", "b")


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "d", "b")
    write_text(run.history, "old")
    again = RunFolder.create(tmp_path / "run", "d", "b", overwrite=True)
    assert names(again.path) == ["state.json"]
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text("mine: true")
    (home / "state.json").write_text('{"status": "mine"}')
    with pytest.raises(StorageError, match="did not write"):
        RunFolder.create(home, "d", "b", overwrite=True)
    assert names(home) == ["config.yaml", "state.json"]
    assert names(tmp_path) == ["home", "run"]


def test_a_run_that_is_going_on_is_not_replaced(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "d", "b")
    with run.locked():
        for refused in (
            RunFolder.require_free,
            lambda out, overwrite: RunFolder.create(out, "d", "b", overwrite),
        ):
            with pytest.raises(StorageError, match="is in use: another run writes to it"):
                refused(run.path, True)
        assert run.read_state()["status"] == "running"
    RunFolder.create(run.path, "d", "b", overwrite=True)


def test_the_old_run_survives_when_the_new_one_cannot_be_made(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "d", "b")
    write_text(run.history, "old")
    with a_full_disk(free=10), pytest.raises(StorageError):
        RunFolder.create(tmp_path / "run", "d", "b", overwrite=True)
    assert run.history.read_text() == "old"
    assert names(tmp_path) == ["run"]


def test_a_complete_run_comes_back(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "d", "b")
    assert run.read_state()["status"] == "running"
    run.complete(RESULT)
    assert load_result(tmp_path / "run") == RESULT
    assert run.read_state()["stage"] == "head"


def test_a_result_of_a_newer_version_is_read() -> None:
    tree = RESULT.to_dict()
    tree["new"] = 1
    tree["stages"][0]["what a newer version writes"] = {"mode": "memory"}
    assert Result.from_dict(tree) == RESULT


def test_what_is_not_a_complete_run_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run folder: no such folder"):
        load_result(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"not a run folder: it has no state\.json"):
        load_result(tmp_path)
    run = RunFolder.create(tmp_path / "run", "d", "b")
    run.write_state("interrupted", "all")
    with pytest.raises(ConfigError, match=r"not a complete run.*'interrupted' in stage 'all'"):
        load_result(run.path)
    run.result.write_text('{"metrics": 3}')
    with pytest.raises(ConfigError, match="not the result of a run"):
        load_result(run.path)


def test_the_table_of_runs_survives_broken_ones(tmp_path: Path) -> None:
    whole = RunFolder.create(tmp_path / "whole", "d", "b")
    write_text(whole.config, "backbone: b\ntask: classify\ndata: {source: elpv}\n")
    whole.complete(RESULT)
    RunFolder.create(tmp_path / "running", "d", "b")
    killed = RunFolder.create(tmp_path / "killed", "d", "b")
    killed.write_state("complete")
    damaged = RunFolder.create(tmp_path / "damaged", "d", "b")
    damaged.state.write_text("{")
    damaged.config.write_text("a: [")
    damaged_result = RunFolder.create(tmp_path / "damaged_result", "d", "b")
    damaged_result.result.write_text('{"metrics": {"test": 3}, "stages": [], "seconds": 1}')
    (tmp_path / "no_run").mkdir()
    rows = {row.name: row for row in list_runs(tmp_path)}
    statuses = {name: row.status for name, row in rows.items()}
    assert statuses == {
        "whole": "complete",
        "running": "running",
        "killed": "interrupted",
        "damaged": "damaged",
        "damaged_result": "damaged",
    }
    row = rows["whole"]
    assert (row.backbone, row.task, row.data, row.metric, row.value, row.minutes) == (
        "b",
        "classify",
        "elpv",
        "accuracy",
        0.9,
        1.5,
    )
    assert [row.name for row in list_runs(tmp_path / "whole")] == ["whole"]
    with pytest.raises(StorageError, match="No such file"):
        list_runs(tmp_path / "nowhere")


def test_the_environment_names_versions_without_loading_tensorflow() -> None:
    code = (
        "import sys, json; from tlkit.results import environment; e = environment();"
        "print(json.dumps([e, [m for m in ('tensorflow', 'keras', 'pandas') if m in sys.modules]]))"
    )
    root = Path(__file__).parents[1]
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    ).stdout
    found, loaded = json.loads(out)
    assert loaded == []
    assert found["packages"]["tensorflow"] == environment()["packages"]["tensorflow"]


@pytest.mark.skipif(os.name != "posix", reason="flock")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_as_such(code, tmp_path, monkeypatch):
    def flock(*arguments):
        raise OSError(code, os.strerror(code))

    run = RunFolder.create(tmp_path / "run", "photos", "image_cnn")
    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(StorageError, match=f"{run.path} is on a file system without locks .*, so"),
        run.locked(),
    ):
        pass
