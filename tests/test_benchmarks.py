"""The benchmarks run, go on where they were, and say what their answers say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"

# Two sides that take no time, and how often each ran.
COUNTING = """
import sys
from pathlib import Path
from rich.table import Table
from sides import Side, make_parser, median, run_sides

def measure(name, seconds):
    def run(arguments):
        with open("runs.txt", "a") as file:
            file.write(f"{name} {arguments.repeat} {arguments.scratch.exists()}\\n")
        return {"seconds": seconds}
    return Side(run)

SIDES = {"quick": measure("quick", 1.0), "slow side": measure("slow side", 3.0),
         "absent": Side(None, needs=("no_such_package",))}
parser = make_parser("Nothing.\\n\\nNothing at all.", SIDES, data="none")
run_sides(parser, SIDES, lambda found, arguments: (Table("side"), {}))
"""


def run(script: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), str(BENCHMARKS), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, str(script), *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def answers(script: Path, *words: str, cwd: Path) -> Any:
    done = run(script, *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    (tmp_path / "counting.py").write_text(COUNTING, encoding="utf-8")
    return tmp_path / "counting.py"


def test_kept_answers_are_not_measured_again(counting: Path, tmp_path: Path) -> None:
    sides = ("--sides", "quick", "slow side")
    answers(counting, "--sides", "quick", "--repeats", "1", "--out", "kept.json", cwd=tmp_path)
    found = answers(counting, *sides, "--repeats", "2", "--out", "kept.json", cwd=tmp_path)
    assert found["sides"] == {"quick": [{"seconds": 1.0}] * 2, "slow side": [{"seconds": 3.0}] * 2}
    runs = (tmp_path / "runs.txt").read_text(encoding="utf-8").splitlines()
    assert runs == ["quick 0 True", "slow side 0 True", "quick 1 True", "slow side 1 True"]


def test_answers_to_other_settings_are_not_mixed_in(counting: Path, tmp_path: Path) -> None:
    words = ("--sides", "quick", "--repeats", "1", "--out", "kept.json")
    answers(counting, *words, cwd=tmp_path)
    done = run(counting, *words, "--limit", "7", cwd=tmp_path)
    assert done.returncode == 2
    assert "kept.json has answers to other settings" in done.stderr


def test_a_side_whose_packages_are_missing_is_refused_before_anything_runs(
    counting: Path, tmp_path: Path
) -> None:
    done = run(counting, cwd=tmp_path)
    assert done.returncode == 2
    assert "needs no_such_package" in done.stderr
    assert not (tmp_path / "runs.txt").exists()


def test_the_target_is_the_lowest_of_the_best_accuracies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from recipe_images import middle, times_to_target

    found = {
        "tlkit": [{"history": [[1.0, 0.5], [2.0, 0.8], [3.0, 0.9]]}, {"history": [[1.0, 0.5]]}],
        "other": [{"history": [[9.0, 0.7]]}],
    }
    assert times_to_target(found, "tlkit", None) == [2.0, 1.0]
    assert times_to_target(found, "other", None) == [9.0]
    assert times_to_target(found, "other", 0.8) == [None]
    assert middle([None, 3.0, 1.0]) == 3.0
    assert middle([None, None, 1.0]) is None


FEW = ("--limit", "60", "--repeats", "1", "--sides", "tlkit")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("head_stage.py", ["--data", "elpv", "--epochs", "1"]),
        ("recipe_images.py", ["--data", "elpv", "--set", "training.epochs=1"]),
    ],
)
def test_tlkit_runs_in_the_benchmarks_of_pictures(script: str, words: list[str], tmp_path: Path) -> None:
    require_measured(answers(BENCHMARKS / script, *words, *FEW, cwd=tmp_path))


@pytest.mark.real
@pytest.mark.slow
def test_tlkit_runs_in_the_benchmark_of_texts(shared_data: Path, tmp_path: Path) -> None:
    data = str(shared_data / "rt_polarity" / "rt_polarity.csv")
    words = ("--data", data, "--stages", "head:1")
    require_measured(answers(BENCHMARKS / "text_recipe.py", *words, *FEW, cwd=tmp_path))


def require_measured(found: Any) -> None:
    (answer,) = found["sides"]["tlkit"]
    assert answer["seconds"] > 0
    assert 0 <= answer["test_accuracy"] <= 1


@pytest.mark.real
@pytest.mark.slow
def test_two_workers_run_in_the_benchmark_of_scaling(tmp_path: Path) -> None:
    words = ("--limit", "60", "--repeats", "1", "--sides", "head", "--steps", "1", "--image-size", "64")
    found = answers(BENCHMARKS / "scaling.py", *words, "--batch-size", "8", cwd=tmp_path)
    (answer,) = found["sides"]["head"]
    assert answer["one_per_second"] == pytest.approx(8 / answer["one_step_ms"] * 1000)
    assert answer["speedup"] == pytest.approx(answer["two_per_second"] / answer["one_per_second"])
    assert answer["collectives"] == pytest.approx(1 - answer["speedup"] / answer["most"])
    assert answer["megabytes"] < 0.1, "of a head"
