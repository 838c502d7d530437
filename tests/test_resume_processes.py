"""Processes that are killed, told to end or interrupted, and what goes on afterwards.

The long one, on its own, with where it killed: pytest -m slow -s tests/test_resume_processes.py
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

import tlkit
from tlkit.results import RunFolder, Saves

from conftest import make_pictures

PLAN = "plan=[{train: head, epochs: 2}, {train: 1, epochs: 2}, {train: all, epochs: 2}]"
# Ends the process, as SIGKILL does, in the middle of the named function's n-th call.
DIES = """
import importlib, os, signal, sys
module, name, count, *arguments = sys.argv[1:]
holder = importlib.import_module(module)
*parents, last = name.split(".")
for parent in parents:
    holder = getattr(holder, parent)
function, calls = getattr(holder, last), iter(range(int(count) - 1))
def call(*args, **kwargs):
    if next(calls, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)
setattr(holder, last, call)
from tlkit.cli import main
sys.exit(main(arguments))
"""
PLACES = {
    "features being stored": ("tlkit.features.table", "DiskTable._write", 2),
    "between two steps": ("tlkit.training.resuming.saver", "SaveProgress.on_train_batch_end", 5),
    "arrays saved, the rest not": ("tlkit.results.saves", "write_text", 3),
    "a stage ends": ("tlkit.training.stages", "check_unchanged", 1),
    "the next stage begins": ("tlkit.training.stages", "apply_freeze", 2),
    "evaluation": ("tlkit.workflows.finetune", "save_outputs", 1),
    "export": ("tlkit.exporting.saved_model", "check_export", 1),
    "the very end": ("tlkit.results.folder", "write_json", 2),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos", per_class=12)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    words = {"good": ("fine", "warm", "lovely"), "bad": ("dull", "cold", "awful")}
    draw = random.Random(0)
    rows = [
        {
            "text": f"a {draw.choice(words[label])} film {number}" + " indeed" * draw.randrange(9),
            "label": label,
        }
        for number in range(60)
        for label in words
    ]
    path = tmp_path_factory.mktemp("data") / "films.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def arguments(data, out, *more):
    backbone = "text_cnn" if Path(data).suffix == ".csv" else "image_cnn"
    size = "preprocessing.sequence_length=24" if backbone == "text_cnn" else "preprocessing.image_size=32"
    return [
        *("finetune", "--data", str(data), "--out", str(out), "--backbone", backbone, "--batch-size", "8"),
        *("--deterministic", "weights=none", size, PLAN, "training.save_every=2", "training.ema=0.9"),
        *("head.dropout=0.3", "cache.mode=disk", *more),
    ]


def start(options, home, program=("-m", "tlkit")):
    return subprocess.Popen(
        [sys.executable, *program, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TLKIT_HOME": str(home)},
    )


def finish(options, home):
    with start(options, home) as process:
        _, messages = process.communicate()
    assert process.returncode == 0, messages


def assert_same(out, expected):
    one, other = tlkit.load(out), tlkit.load(expected)
    for found, wanted in zip(one.model.weights, other.model.weights, strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    assert (out / "history.csv").read_text() == (expected / "history.csv").read_text()
    assert one.result.metrics == other.result.metrics
    for name in ("outputs", "ids"):
        np.testing.assert_array_equal(
            np.load(out / "outputs.npz")[name], np.load(expected / "outputs.npz")[name]
        )
    assert not (out / "state").exists(), "a complete run needs no saves"


def test_a_run_that_was_killed_in_every_part_of_it_ends_as_the_whole_one(photos, tmp_path):
    finish(arguments(photos, tmp_path / "whole"), tmp_path / "home_a")
    out, home = tmp_path / "killed", tmp_path / "home_b"
    for module, name, count in PLACES.values():
        options = [module, name, str(count), *arguments(photos, out, "--resume")]
        with start(options, home, ("-c", DIES)) as process:
            _, messages = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"{name}: {messages}"
        assert not (out / "result.json").exists()
    finish(["finetune", "--out", str(out), "--resume"], home)
    assert_same(out, tmp_path / "whole")
    assert (
        len(json.loads((out / "result.json").read_text())["resumed"]) >= 3
    )  # kills between two saves are one


@pytest.mark.slow
@pytest.mark.parametrize("data", ["photos", "texts"])
def test_twenty_five_kills_at_random_moments(data, request, tmp_path):
    source, longer = request.getfixturevalue(data), PLAN.replace("epochs: 2", "epochs: 8")
    before = core_seconds()
    finish(arguments(source, tmp_path / "whole", longer), tmp_path / "home_a")
    seconds = core_seconds() - before
    out, home, draw = tmp_path / "killed", tmp_path / "home_b", random.Random(0)
    runs, kills = 1, Counter[str]()
    while kills.total() < 25:
        with start(arguments(source, out, longer, "--resume"), home) as process:
            # From about where Python has loaded to where a part of the work is done: several kills a run.
            if killed_after(draw.uniform(0.2, 0.6) * seconds, process):
                kills[where(out, home)] += 1
                continue
            _, messages = process.communicate()
        assert process.returncode == 0, messages
        assert_same(out, tmp_path / "whole")
        runs += 1  # it came to its end: the next one begins, and stores its features, too
        out, home = tmp_path / f"killed{runs}", tmp_path / f"home_b{runs}"
    finish(arguments(source, out, longer, "--resume"), home)
    assert_same(out, tmp_path / "whole")
    print(f"{data}: {kills.total()} kills in {runs} runs, each as the whole one: {dict(kills)}")


def core_seconds():
    """What all processes that this one has waited for have had of the cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def killed_after(seconds, process):
    """Kill a process once it has had so many seconds of a core, however busy the machine is; whether it was
    still there."""
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            if sum(watched.cpu_times()[:2]) > seconds:
                process.kill()
                process.wait()
                return True
        time.sleep(0.01)
    return False


def where(out, home):
    """What a run did when it was killed, by what it had written."""
    saved, _ = Saves(out / "state").read()
    if saved is None:
        return "while features are stored" if (home / "features").is_dir() else "before that"
    for pattern, part in {
        "state/.*.partial": "in a save",
        ".export.*": "in the export",
        "export/saved_model.pb": "after the export",
        "outputs.npz": "before the export",
        "model.keras": "in the evaluation",
    }.items():
        if any(out.glob(pattern)):
            return part
    return f"after a save of {saved['progress']['begun'][-1]['name']}"


def test_sigterm_saves_and_ends_with_143_and_ctrl_c_with_130(photos, tmp_path):
    out = tmp_path / "run"
    options = arguments(photos, out, "training.epochs=300", "plan=head")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = newest(out)
        with start([*options, "--resume"], tmp_path / "home", ("-c", LISTENS)) as process:
            try:
                wait_for(lambda at=before: newest(out) > at + 2, process)
                started = time.monotonic()
                process.send_signal(number)
                _, messages = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == code, messages
        assert time.monotonic() - started < 10
        assert f"tlkit finetune --out {out} --resume" in messages
        assert "Traceback" not in messages
        assert RunFolder(out).read_state()["status"] == "interrupted"


LISTENS = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from tlkit.cli import main; sys.exit(main())"
)


def test_two_runs_do_not_share_a_folder_and_a_dead_one_does_not_hold_it(photos, tmp_path):
    out, home = tmp_path / "run", tmp_path / "home"
    options = arguments(photos, out, "training.epochs=300", "plan=head")
    with start(options, home) as first:
        try:
            wait_for(lambda: newest(out) > 2, first)
            for flag in ("--resume", "--overwrite"):
                with start([*options, flag], home) as second:
                    _, messages = second.communicate()
                assert second.returncode == 2
                assert f"{out} is in use: another run writes to it." in messages
        finally:
            first.kill()
    assert (out / "state").exists()
    with start([*options, "--resume", "seed=3", "training.epochs=20"], home) as process:
        _, messages = process.communicate()
    assert process.returncode == 2
    assert "seed is 0, not 3" in messages
    assert "training.epochs is 300, not 20" in messages
    assert "in use" not in messages


def test_data_that_changed_is_not_gone_on_with(tmp_path):
    photos, out, home = make_pictures(tmp_path / "photos", per_class=12), tmp_path / "run", tmp_path / "home"
    options = [*PLACES["between two steps"], *arguments(photos, out)]
    with start([str(each) for each in options], home, ("-c", DIES)) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    next(photos.rglob("*.png")).unlink()
    with start(["finetune", "--out", str(out), "--resume"], home) as process:
        _, messages = process.communicate()
    assert process.returncode == 2
    assert "is not what the run began with: of 36 examples 1 are gone or changed, 0 are new" in messages


def newest(out):
    """The number of the last save."""
    return max((int(file.stem) for file in (out / "state").glob("0*.json")), default=0)


def wait_for(is_so, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    assert is_so()
