"""The commands that work on a run, on one small run that the shell itself made."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tlkit
from tlkit.cli import main
from tlkit.cli.report import print_next_steps, print_run

from conftest import make_pictures

SMALL = ["--backbone", "image_cnn", "weights=none", "--image-size", "32", "--plan", "head"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """`tlkit finetune --json` in a process of its own, so that its streams are the real ones."""
    out = tmp_path_factory.mktemp("runs") / "first"
    command = ["finetune", "--data", str(photos), *SMALL, "--epochs", "1", "--out", str(out), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-m", "tlkit", *command], capture_output=True, text=True, env=environment
    )


@pytest.fixture(scope="module")
def run(finished: subprocess.CompletedProcess[str]) -> Path:
    assert finished.returncode == 0, finished.stderr
    return Path(json.loads(finished.stdout)["run"])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no picture")
    return path


def document(capfd: Capture, *arguments: str | Path) -> Any:
    """The JSON document that a command prints, which must be all that it prints on standard output."""
    capfd.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_finetune_prints_one_document_and_no_noise(
    run: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    result = json.loads(finished.stdout)
    assert set(result) == {"run", "export", "metrics", "stages", "seconds", "environment", "resumed"}
    assert 0 <= result["metrics"]["test"]["accuracy"] <= 1
    assert Path(result["export"], "saved_model.pb").is_file()
    assert "accuracy" in finished.stderr  # progress
    said = ("stage ", "Features: ", "No stored features: ")
    assert all(line.startswith(said) for line in finished.stderr.splitlines() if line)


def test_a_run_is_shown_with_metrics_stages_and_what_to_type_next(run: Path, capfd: Capture) -> None:
    loaded = tlkit.load(run)
    print_run(loaded, as_json=False)
    print_next_steps(loaded)
    out = capfd.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["metric", "validation", "test"] in lines
    assert any(line[:1] == ["accuracy"] and len(line) == 3 for line in lines)
    assert any(line[:2] == ["head", "head"] and line[-2:] == ["unchanged", "frozen"] for line in lines)
    assert ["Run", "folder", str(run)] in lines
    assert ["SavedModel", str(run / "export")] in lines
    assert f"tlkit predict {run}" in out


def test_predict_answers_what_can_be_read_and_names_the_rest(
    run: Path, photos: Path, broken: Path, capfd: Capture
) -> None:
    answers = document(capfd, "predict", run, photos / "red", broken, "--top", "2")
    assert len(answers) == 13
    assert set(answers[0]) == {"input", "label", "score", "scores", "top_k"}
    assert len(answers[0]["top_k"]) == 2
    assert sum(answers[0]["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert set(answers[-1]) == {"input", "error"}
    assert answers[-1]["input"] == str(broken)


def test_predict_as_csv_and_as_a_table(run: Path, photos: Path, broken: Path, capfd: Capture) -> None:
    inputs = [str(photos / "red" / "00.png"), str(broken)]
    assert main(["predict", str(run), *inputs, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert [row["input"] for row in rows] == inputs
    assert rows[0]["label"] in ("blue", "green", "red")
    assert (rows[1]["label"], rows[0]["error"]) == ("", "")
    assert "not an image" in rows[1]["error"]
    assert main(["predict", str(run), *inputs]) == 0
    assert capfd.readouterr().out.splitlines()[0].split() == ["input", "label", "score", "error"]


def test_predict_fails_where_nothing_can_be_answered(
    run: Path, broken: Path, tmp_path: Path, capfd: Capture
) -> None:
    assert main(["predict", str(run), str(broken)]) == 2
    assert "Error: No input could be used: " in capfd.readouterr().err
    assert main(["predict", str(run), str(tmp_path / "missing.png")]) == 2
    assert "no such file or folder" in capfd.readouterr().err
    assert main(["predict", str(tmp_path), str(broken)]) == 2
    assert "is not a run folder" in capfd.readouterr().err
    assert main(["predict", str(run), str(broken), "--csv", "--json"]) == 2


def test_evaluate_on_the_own_test_split_gives_what_the_run_reported(run: Path, capfd: Capture) -> None:
    metrics = document(capfd, "evaluate", run)
    reported = json.loads((run / "result.json").read_text())["metrics"]["test"]
    assert metrics["accuracy"] == reported["accuracy"]
    assert metrics["loss"] == pytest.approx(reported["loss"], rel=1e-4)


def test_evaluate_on_other_data(run: Path, tmp_path: Path, capfd: Capture) -> None:
    other = make_pictures(tmp_path / "other", per_class=3, seed=1)
    assert main(["evaluate", str(run), "--data", str(other)]) == 0
    assert capfd.readouterr().out.splitlines()[0].split() == ["metric", str(other)]


def test_export_writes_a_saved_model_and_does_not_overwrite_unasked(
    run: Path, tmp_path: Path, capfd: Capture
) -> None:
    target = tmp_path / "exported" / "1"
    assert document(capfd, "export", run, "--to", target) == {"run": str(run), "export": str(target)}
    assert (target / "saved_model.pb").is_file()
    assert main(["export", str(run), "--to", str(target)]) == 2
    assert "is not empty" in capfd.readouterr().err


def test_runs_lists_the_run(run: Path, capfd: Capture) -> None:
    (row,) = document(capfd, "runs", run.parent)
    assert (row["name"], row["status"], row["backbone"]) == ("first", "complete", "image_cnn")
    assert main(["runs", str(run.parent)]) == 0
    assert "first" in capfd.readouterr().out


def test_a_dry_run_trains_nothing_and_says_what_would_be(
    photos: Path, tmp_path: Path, capfd: Capture
) -> None:
    out = tmp_path / "run"
    arguments = ["finetune", "--data", photos, *SMALL, "--epochs", "2", "--out", out, "--dry-run"]
    plan = document(capfd, *arguments)
    (stage,) = plan["stages"]
    assert (stage["name"], stage["epochs"], stage["trained_groups"]) == ("head", 2, ["head"])
    assert stage["seconds_estimate"] > 0
    assert stage["cache"]["mode"] in ("disk", "off")
    assert "computed once in about" in stage["cache"]["reason"]
    assert sum(group["params"] for group in plan["groups"]) == tlkit.zoo.get("image_cnn").params
    assert plan["config"]["training"]["epochs"] == 2
    assert not out.exists()


def test_a_dry_run_is_shown_as_config_groups_and_stages(photos: Path, capfd: Capture) -> None:
    assert main(["finetune", "--data", str(photos), *SMALL, "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("data:\n")
    assert "layer group" in out
    assert "trainable parameters" in out
    assert "computed once in about" in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--data", "missing"], "no such file or folder"),
        (["--data", "PHOTOS", "--backbone", "mobilenet_v3_smal"], "Did you mean 'mobilenet_v3_small'?"),
        (["--data", "PHOTOS", "data.columns.label=x", "--task", "regress"], "Error: "),
        (["--data", "PHOTOS", "plan=[{train: 99, epochs: 1}]"], "trains 99 layer groups"),
    ],
)
def test_a_mistake_leaves_no_run_behind(
    arguments: list[str], part: str, photos: Path, tmp_path: Path, capfd: Capture
) -> None:
    given = [argument.replace("PHOTOS", str(photos)) for argument in arguments]
    out = tmp_path / "run"
    assert main(["finetune", *SMALL, *given, "--out", str(out)]) in (2, 3)
    captured = capfd.readouterr()
    assert part in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
    assert not out.exists()


def test_data_check_counts_and_names_what_cannot_be_used(tmp_path: Path, capfd: Capture) -> None:
    folder = make_pictures(tmp_path / "photos")
    (folder / "red" / "broken.jpg").write_bytes(b"no picture")
    report = document(capfd, "data", "check", folder)
    assert (report["ok"], report["examples"], report["usable"]) == (True, 37, 36)
    assert main(["data", "check", str(folder)]) == 0
    assert "broken.jpg" in capfd.readouterr().out
    assert main(["data", "check", str(folder), "data.max_bad=0"]) == 3
    assert "Error: " in capfd.readouterr().err


def test_data_check_names_pictures_that_are_there_twice(tmp_path: Path, capfd: Capture) -> None:
    folder = make_pictures(tmp_path / "photos")
    picture = sorted((folder / "red").iterdir())[0]
    (folder / "red" / "copy.png").write_bytes(picture.read_bytes())
    (folder / "blue" / "wrong.png").write_bytes(picture.read_bytes())
    assert main(["data", "check", str(folder)]) == 0
    [line] = [line for line in capfd.readouterr().out.splitlines() if "copy.png" in line]
    assert "wrong.png" in line
    assert line.endswith("differ")


def test_data_check_takes_label_columns(photos: Path, tmp_path: Path, capfd: Capture) -> None:
    table = tmp_path / "table.csv"
    pictures = sorted(photos.rglob("*.png"))
    rows = [f"{path},{place % 2},{place // 3 % 2}" for place, path in enumerate(pictures)]
    table.write_text("\n".join(["path,a,b", *rows]))
    report = document(capfd, "data", "check", table, "--task", "multilabel", "--label", "a", "--label", "b")
    assert set(report["classes"]) == {"a", "b"}
