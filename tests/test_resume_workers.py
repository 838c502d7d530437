"""Runs on several replicas that are killed or told to end, and what goes on afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_resume_processes import DIES, PLACES, arguments, assert_same, newest, wait_for

from tlkit.results import RunFolder

from conftest import make_pictures
from worker_processes import Ended, environment_of, free_addresses, run_workers, succeeded

TWO_DEVICES = """
import tensorflow as tf
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
"""
RUNS = "import sys\nfrom tlkit.cli import main\nsys.exit(main())"
HOME_OF_ITS_OWN = """
import json, os
number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
os.environ["TLKIT_HOME"] += f"_{number}"
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos", per_class=12)


def options(photos, out, *more) -> list[str]:
    return arguments(photos, out, *more)


def mirrored(code: str, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-c", TWO_DEVICES + code, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_mirrored_run_that_was_killed_ends_as_the_whole_one(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home_a"))
    words = options(photos, tmp_path / "whole", "--strategy", "mirrored")
    done = mirrored(RUNS, *words)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home_b"))
    out = tmp_path / "killed"
    for module, name, count in PLACES.values():
        words = options(photos, out, "--strategy", "mirrored", "--resume")
        done = mirrored(DIES, module, name, str(count), *words)
        assert done.returncode == -signal.SIGKILL, f"{name}: {done.stderr}"
    done = mirrored(RUNS, "finetune", "--out", str(out), "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(out, tmp_path / "whole")


IN_THE_MIDDLE_OF_AN_EPOCH = """
import sys
from pathlib import Path
from tlkit.devices import make_strategy
from test_resume import STAGES, KillAt, assert_same, finish, make
def own():
    return make(batch_norm="train", strategy=make_strategy("mirrored"))
folder = Path(sys.argv[1])
expected = finish(folder / "whole", STAGES, own)
assert_same(finish(folder / "killed", STAGES, own, [3, 4, KillAt(5, at_epoch_end=True), 14]), expected)
"""


def test_each_replica_goes_on_with_its_own_statistics(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]]))
    done = mirrored(IN_THE_MIDDLE_OF_AN_EPOCH, str(tmp_path))
    assert done.returncode == 0, done.stderr


def both(first: list[str], second: list[str]) -> list[Ended]:
    return run_workers([["-c", *first], ["-c", *second]])


OF_WORKERS = {
    "batches evaluated, not shared": ("tlkit.workflows.outputs", "_of_all_workers", 1),
    "all but the result written": ("tlkit.results.folder", "write_json", 4),
}
KILLED = [
    ("between two steps", 1),
    ("arrays saved, the rest not", 0),
    *(
        pytest.param(place, number, marks=pytest.mark.slow)
        for place, number in [
            ("features being stored", 0),
            ("features being stored", 1),
            ("a stage ends", 1),
            ("the next stage begins", 0),
            ("batches evaluated, not shared", 0),
            ("batches evaluated, not shared", 1),
            ("evaluation", 0),
            ("export", 0),
            ("all but the result written", 0),
        ]
    ),
]


def dying(place: str, photos, out) -> list[str]:
    module, name, count = (PLACES | OF_WORKERS)[place]
    return [DIES, module, name, str(count), *options(photos, out, "--resume")]


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A run of two workers that nobody killed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_HOME", str(folder / "home"))
        words = [RUNS, *options(photos, folder / "run")]
        succeeded(both(words, words))
        yield folder / "run"


@pytest.mark.parametrize(("place", "number"), KILLED)
def test_two_workers_of_which_one_was_killed_end_as_those_that_were_not(
    place, number, photos, whole, tmp_path, monkeypatch
):
    """The caches are two, as those of two machines: of one, only the worker that comes first fills it."""
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    out = tmp_path / "run"
    pair = [[RUNS, *options(photos, out, "--resume")]] * 2
    pair[number] = dying(place, photos, out)
    ended = both(*([f"{HOME_OF_ITS_OWN}{code}", *words] for code, *words in pair))
    assert ended[number].code == -signal.SIGKILL, ended[number].err
    other = ended[1 - number]
    assert other.code == 2, other.err
    assert other.err.count("Another worker stopped, and this one cannot go on without it") == 1
    said = other.err.partition("Exception ignored in")[0]  # TensorFlow, at its exit
    assert "Traceback" not in said
    assert not (out / "result.json").exists()
    again = [f"{HOME_OF_ITS_OWN}{RUNS}", "finetune", "--out", str(out), "--resume"]
    succeeded(both(again, again))
    assert_same(out, whole)
    resumed = json.loads((out / "result.json").read_text())["resumed"]
    assert len(resumed) == (place != "features being stored"), "nothing is saved before"


@pytest.mark.slow
def test_where_the_chief_is_refused_the_others_end_soon(photos, tmp_path):
    run = RunFolder.create(tmp_path / "run", "photos", "image_cnn")
    words = [RUNS, *options(photos, run.path, "--resume")]
    with run.locked():
        chief, other = both(words, words)
    assert (chief.code, other.code) == (2, 2)
    assert f"{run.path} is in use: another run writes to it." in chief.err
    assert other.err.count("Another worker stopped, and this one cannot go on without it") == 1


def test_the_number_of_replicas_has_to_stay(photos, tmp_path):
    out = tmp_path / "run"
    ended = both(
        [RUNS, *options(photos, out)], dying("between two steps", photos, out)[:4] + options(photos, out)
    )
    assert ended[1].code == -signal.SIGKILL
    words = ["finetune", "--out", str(out), "--resume"]
    done = subprocess.run(
        [sys.executable, "-m", "tlkit", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "as many replicas as it began with: 2, not 1" in done.stderr


@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_to_one_of_two_workers_saves_and_ends_both_with_143(photos, tmp_path, told):
    out = tmp_path / "run"
    words = options(photos, out, "training.epochs=300", "plan=head", "training.save_every=10min")
    addresses = free_addresses(2)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUNS, *words],
            env=environment_of(addresses, number),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for number in range(2)
    ]
    try:
        wait_for(lambda: newest(out) > 2, processes[0])
        started = time.monotonic()
        processes[told].send_signal(signal.SIGTERM)
        messages = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [143, 143], messages
    assert time.monotonic() - started < 10
    assert f"tlkit finetune --out {out} --resume" in messages[0]
    assert RunFolder(out).read_state()["status"] == "interrupted"
