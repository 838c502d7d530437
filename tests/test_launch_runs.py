"""Real runs in workers that `tlkit launch` started, ended from outside: all end soon, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

import tlkit
from tlkit.results import RunFolder

from conftest import make_pictures

# One that would take for ever, of many epochs that take no time.
FINETUNE = (
    *("--backbone", "image_cnn", "--image-size", "16", "--batch-size", "8", "--plan", "full"),
    *("training.patience=1000", "training.save_every=2", "export=false"),
)
LISTENS = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from tlkit.cli import main; sys.exit(main())"
)
SAVED_SECONDS = 180.0  # until a run has begun and saved, or ended, with other tests beside it


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "photos", per_class=11, size=20)


class Launched:
    """`tlkit launch` with two workers, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, out: Path) -> None:
        self.process = process
        self.log = log
        self.out = out

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def saves(self) -> int:
        """The number of the last save."""
        return max((int(file.stem) for file in (self.out / "state").glob("0*.json")), default=0)

    @property
    def workers(self) -> list[psutil.Process]:
        """The second one last."""
        return sorted(psutil.Process(self.process.pid).children(), key=lambda each: each.pid)

    def wait_for(self, is_so: Callable[[], bool], seconds: float = SAVED_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def end(self, act: Callable[[], None], seconds: float) -> int:
        """Its exit code, once it has ended by what is done to it. It has so many seconds for that."""
        workers = self.workers
        act()
        started = time.monotonic()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still there after {seconds:g} s: {self.said}")
        print(f"ended after {time.monotonic() - started:.1f} s with {code}")
        assert not any(worker.is_running() for worker in workers)
        assert "Traceback" not in self.said, self.said
        return code


@contextmanager
def launched(photos: Path, out: Path, epochs: int, *options: str) -> Iterator[Launched]:
    log = out.with_suffix(".log")
    command = [*("launch", "--workers", "2", *options), "--"]
    command += ["finetune", "--data", str(photos), "--out", str(out), "--epochs", str(epochs), *FINETUNE]
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-c", LISTENS, *command], stdout=subprocess.DEVNULL, stderr=file
        ) as process,
    ):
        run = Launched(process, log, out)
        try:
            yield run
        finally:
            if process.poll() is None:
                for worker in run.workers:
                    worker.kill()
                process.kill()


def status(out: Path) -> str:
    return str(RunFolder(out).read_state()["status"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "seconds"),
    [(signal.SIGINT, 130, 20.0), (signal.SIGTERM, 143, 10.0)],
    ids=["INT", "TERM"],
)
def test_who_ends_launch_ends_all_workers_and_the_run_is_saved(
    number: signal.Signals, code: int, seconds: float, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with launched(photos, out, epochs=100_000) as run:
        run.wait_for(lambda: run.saves > 2)
        assert run.end(lambda: os.kill(run.process.pid, number), seconds) == code
    assert status(out) == "interrupted"
    assert f"tlkit finetune --out {out} --resume" in run.said


@pytest.mark.slow
def test_when_a_worker_is_killed_the_other_stops_and_says_so(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with launched(photos, out, epochs=100_000) as run:
        run.wait_for(lambda: run.saves > 2)
        assert run.end(lambda: run.workers[-1].kill(), seconds=60.0) == 137
    assert "Worker 1 was ended by signal 9 (Killed, most likely out of memory). Ending worker 0." in run.said
    assert status(out) in ("interrupted", "failed")


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 1], ids=["the chief", "the other"])
def test_after_a_kill_all_start_again_and_the_run_ends_as_if_nothing_had_been(
    worker: int, photos: Path, tmp_path: Path
) -> None:
    out, whole, epochs = tmp_path / "run", tmp_path / "whole", 10
    with launched(photos, out, epochs, "--restarts", "1") as run:
        run.wait_for(lambda: run.saves > 2)
        run.workers[worker].kill()
        assert run.process.wait(SAVED_SECONDS) == 0, run.said
    assert "All 2 workers start again (restart 1 of 1)." in run.said
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert len(result["resumed"]) == 1
    with launched(photos, whole, epochs) as run:
        assert run.process.wait(SAVED_SECONDS) == 0, run.said
    one, other = tlkit.load(out).model, tlkit.load(whole).model
    for found, expected in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-3)
