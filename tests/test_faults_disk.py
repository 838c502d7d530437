"""A disk that is full, or may not be written to, at any write: the run stops with one line, what is there is
whole, and once that is mended it goes on to the same end.

Every write of a run: pytest -m slow tests/test_faults_disk.py
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from test_resume_processes import arguments, assert_same, finish, start

import tlkit
from tlkit.errors import StorageError
from tlkit.results import RunFolder, Saves

from conftest import make_pictures
from faulty_disk import FaultyDisk, read_only

STAGES = [{"train": "head", "epochs": 2}, {"train": "all", "epochs": 1}]


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module", params=["off", pytest.param("disk", marks=pytest.mark.slow)])
def whole(request, photos, tmp_path_factory):
    """A run without faults, in a folder where everything that is written was counted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, FaultyDisk(folder).watched() as disk:
        patch.setenv("TLKIT_HOME", str(folder / "home"))
        run = finetune(photos, folder, request.param)
    return Whole(run.path, request.param, disk)


class Whole:
    def __init__(self, path, cache, disk):
        self.path, self.cache, self.disk = path, cache, disk


def finetune(photos, folder, cache="off", **settings):
    return tlkit.finetune(
        photos,
        "image_cnn",
        out=folder / "run",
        image_size=32,
        batch_size=12,
        plan=STAGES,
        config={
            "weights": "none",
            "architecture": {"layers": 2, "width": 4},
            "training": {"save_every": 2, "ema": 0.9},
            "head": {"dropout": 0.3},
        },
        cache={"mode": cache},
        export=False,
        **settings,
    )


def require_whole(folder):
    """Every file of a run's folder opens, and nobody left half of one."""
    assert not [*folder.parent.rglob(".*.partial*"), *folder.parent.rglob(".*.old*")]
    for path in folder.rglob("*"):
        if path.is_file():
            open_whole(path)
    saves = Saves(folder / "state")
    assert saves.read()[1] == []
    arrays, others = ({path.stem for path in saves.folder.glob(f"0*.{kind}")} for kind in ("npz", "json"))
    assert arrays == others


def open_whole(path):
    match path.suffix:
        case ".json":
            json.loads(path.read_text())
        case ".yaml":
            yaml.safe_load(path.read_text())
        case ".csv":
            pd.read_csv(path)
        case ".npz":
            with np.load(path) as arrays:
                assert all(arrays[name].size >= 0 for name in arrays.files)
        case ".h5":
            with h5py.File(path) as file:
                assert list(file)
        case ".keras":
            keras.saving.load_model(path)


def check_a_write(whole, photos, folder, at, lasts=True, code=errno.ENOSPC):
    """Fail at a write, look at what is left, and go on to the end."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, FaultyDisk(folder).watched() as disk:
        patch.setenv("TLKIT_HOME", str(folder / "home"))
        disk.fail(at, lasts, code)
        try:
            finetune(photos, folder, whole.cache)
        except StorageError as error:
            message = str(error)
            assert "\n" not in message
            assert re.search(rf"{re.escape(str(folder))}\S*( cannot be used)?: {os.strerror(code)}", message)
        else:  # it can do without a feature or two
            assert not lasts
            assert disk.writes[at - 1].startswith(f"{folder}/home/")
        disk.mend()
        require_whole(folder / "run")
        finetune(photos, folder, whole.cache, resume=True)
    assert_same(folder / "run", whole.path)
    require_whole(folder / "run")


# Part of what has such a name is written, and then no more; what has no dot in front of it gets no name.
PLACES = [r"^\.config", r"^\.000002.*npz", r"^stage1.weights", r"^\.stage1\..*csv", r"^\.model", r"^result"]


@pytest.mark.parametrize(
    "place",
    [
        name if "npz" in name or "model" in name else pytest.param(name, marks=pytest.mark.slow)
        for name in PLACES
    ],
)
def test_a_disk_that_is_full_stops_a_run_which_goes_on_once_there_is_room(place, whole, photos, tmp_path):
    check_a_write(whole, photos, tmp_path / "disk", whole.disk.find(place))


def test_a_write_that_fails_once_does_so_too(whole, photos, tmp_path):
    folder = tmp_path / "disk"
    check_a_write(whole, photos, folder, whole.disk.find(r"^\.stage2.*csv"), lasts=False, code=errno.EIO)


@pytest.mark.slow
@pytest.mark.parametrize("lasts", [True, False])
def test_every_write_may_fail(lasts, whole, photos, tmp_path):
    count = len(whole.disk.writes)
    assert count > 50
    for number in range(1, count + 1):
        print(f"{number} of {count}: {whole.disk.writes[number - 1]}")
        check_a_write(whole, photos, tmp_path / f"disk{number}", number, lasts)
        shutil.rmtree(tmp_path / f"disk{number}")


# Lets no file of the process grow beyond so many bytes, which fails as a disk that is full does, also below
# Python.
SMALL_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from tlkit.cli import main
sys.exit(main())
"""


def test_in_the_shell_it_is_one_line_and_exit_code_2(photos, tmp_path):
    out = tmp_path / "run"
    options = arguments(photos, out, "cache.mode=off", "plan=full", "training.epochs=1")
    with start(options, tmp_path / "home", ("-c", SMALL_FILES)) as process:
        _, messages = process.communicate()
    assert process.returncode == 2, messages
    assert "Traceback" not in messages
    (line,) = [line for line in messages.splitlines() if line.startswith("Error: ")]
    assert line == (
        f"Error: Cannot write {out / 'state' / '000001.npz'}: File too large. When that is mended, "
        f"go on with: tlkit finetune --out {out} --resume"
    )
    assert RunFolder(out).read_state()["status"] == "failed"
    require_whole(out)


@pytest.mark.slow
def test_a_small_disk_fills_up_wherever_it_does(photos, tmp_path):
    """A file system of its own, of which each run fills a little more: below Python, too."""
    mounted = ("unshare", "--user", "--map-root-user", "--mount", "--", "bash", "-c")
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*mounted, f"mount -t tmpfs none {tmp_path}"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("nobody may mount a file system here")
    expected, disk = tmp_path / "whole", tmp_path / "disk"
    more = ("cache.mode=off", "training.save_every=10min")
    finish(arguments(photos, expected, *more), tmp_path / "home_a")
    size = sum(path.stat().st_size for path in expected.rglob("*") if path.is_file())
    disk.mkdir()
    failed = 0
    for number, share in enumerate((0.2, 0.6, 0.9)):
        out, kept = disk / "run", tmp_path / f"kept{number}"
        command = [sys.executable, "-m", "tlkit", *arguments(photos, out, *more)]
        script = (
            f"mount -t tmpfs -o size={int(size * share)} none {disk} && "
            f'"$@"; code=$?; cp -a {out} {kept}; exit $code'
        )
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TLKIT_HOME": str(tmp_path / "home_b")}
        done = subprocess.run(
            [*mounted, script, "bash", *command], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode:
            assert done.returncode == 2, done.stderr
            assert "Traceback" not in done.stderr
            assert re.search(rf"Error: Cannot write {out}.*No space left", done.stderr), done.stderr
            require_whole(kept)
            finish(arguments(photos, kept, *more, "--resume"), tmp_path / "home_b")
            failed += 1
        assert_same(kept, expected)
    assert failed >= 2


def test_a_folder_that_nobody_may_write_to_is_told_before_anything_is_trained(photos, tmp_path):
    (tmp_path / "there").mkdir()
    trained = []
    watch = keras.callbacks.LambdaCallback(on_train_begin=trained.append)
    with read_only(tmp_path / "there"), pytest.raises(StorageError) as caught:
        finetune(photos, tmp_path / "there", callbacks=[watch])
    assert str(caught.value) == f"Cannot write {tmp_path / 'there' / 'run'}: Permission denied."
    assert not trained
    assert not list((tmp_path / "there").iterdir())


def test_a_run_folder_that_nobody_may_write_to_any_more_ends_the_run(photos, tmp_path):
    run, own = finetune(photos, tmp_path / "whole", callbacks=[Once(print)]), tmp_path / "own"
    with read_only_later(own / "run") as turn:
        with pytest.raises(StorageError) as caught:
            finetune(photos, own, callbacks=[Once(turn)])
        go_on = f"go on with: tlkit.finetune(out='{own / 'run'}', resume=True, …) and the same callbacks"
        assert re.fullmatch(
            rf"Cannot write {own}/run/\S+: Permission denied. When that is mended, {re.escape(go_on)}",
            str(caught.value),
        )
        with pytest.raises(StorageError, match=f"Cannot write {own}/run.*: Permission denied"):
            finetune(photos, own, callbacks=[Once(print)], resume=True)
    require_whole(own / "run")
    finetune(photos, own, callbacks=[Once(print)], resume=True)
    assert_same(own / "run", run.path)


class Once(keras.callbacks.Callback):
    """Calls a function when the second epoch of the first stage begins."""

    def __init__(self, function):
        super().__init__()
        self.left = iter([None, function])  # an iterator is not saved

    def on_epoch_begin(self, epoch, logs=None):
        function = next(self.left, None)
        if function is not None:
            function()


class read_only_later:  # noqa: N801  as `read_only`
    """`read_only`, from the moment on at which what this gives is called."""

    def __init__(self, folder):
        self.folder, self.entered = folder, None

    def __enter__(self):
        return self.turn

    def turn(self):
        self.entered = read_only(self.folder)
        self.entered.__enter__()

    def __exit__(self, *problem):
        if self.entered is not None:
            self.entered.__exit__(None, None, None)
