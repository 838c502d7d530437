"""A run that stopped goes on with more epochs than it began with, and where its folder is now."""

from __future__ import annotations

import importlib
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from test_resume import KillAt, Killed, make
from test_resume_processes import assert_same

import tlkit
from tlkit.config import RunConfig
from tlkit.errors import ConfigError, DataError
from tlkit.plans import Stage
from tlkit.results import RunFolder, Saves
from tlkit.training import Saving, train_stages
from tlkit.training import stages as stage_loop
from tlkit.training.resuming import saver
from tlkit.training.resuming.saver import SaveProgress
from tlkit.workflows.resume import Stopped, _unlike

from conftest import make_pictures


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


def finetune(photos, out, epochs, plan="head_then_all", **settings):
    """A run whose rate does not depend on how many epochs there are."""
    training = {"save_every": 2, "schedule": "constant", "warmup": 0.0}
    return tlkit.finetune(
        photos,
        "image_cnn",
        out=out,
        plan=plan,
        epochs=epochs,
        image_size=32,
        batch_size=12,
        config={
            "weights": "none",
            "architecture": {"layers": 2, "width": 4},
            "training": training,
            "head": {"dropout": 0.3},
            "cache": {"mode": "off"},
        },
        export=False,
        **settings,
    )


@contextmanager
def killed(holder, name, count):
    """Inside, the process is killed, so to speak, when the function is called for the `count`-th time."""
    function, calls = getattr(holder, name), iter(range(count - 1))

    def call(*args, **kwargs):
        if next(calls, None) is None:
            raise Killed
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        patch.setattr(holder, name, call)
        yield


workflow = importlib.import_module("tlkit.workflows.finetune")  # `tlkit.workflows.finetune` is the function
MOMENTS = {
    "in an epoch": (SaveProgress, "on_train_batch_end", 4),
    "at the end of one": (SaveProgress, "on_epoch_end", 2),
    "at the end of a stage": (stage_loop, "check_unchanged", 1),
    "in the last stage": (SaveProgress, "on_epoch_end", 4),
    "after the last stage": (workflow, "save_outputs", 1),
}


@pytest.fixture(scope="module")
def longer(photos, tmp_path_factory):
    """A run of four epochs a stage, and one of two in its first, which cannot become longer any more."""
    folder = tmp_path_factory.mktemp("longer")
    stages = [{"name": "head", "train": "head", "epochs": 2}, {"name": "all", "train": "all", "epochs": 4}]
    return {
        4: finetune(photos, folder / "4", 4).path,
        2: finetune(photos, folder / "2", None, stages).path,
    }


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(
            name, marks=[] if name in ("at the end of a stage", "in the last stage") else pytest.mark.slow
        )
        for name in MOMENTS
    ],
)
def test_a_run_that_stopped_can_have_more_epochs(moment, photos, longer, tmp_path):
    out = tmp_path / "run"
    with killed(*MOMENTS[moment]):
        finetune(photos, out, 2)
    with pytest.raises(ConfigError, match="training.epochs is 2, not 1"):
        finetune(photos, out, 1, resume=True)
    finetune(photos, out, 4, resume=True)
    assert_same(out, longer[2 if "last" in moment else 4])
    assert yaml.safe_load((out / "config.yaml").read_text())["training"]["epochs"] == 4


def test_more_epochs_are_kept_over_another_stop(photos, longer, tmp_path):
    out = tmp_path / "run"
    with killed(SaveProgress, "on_train_batch_end", 5):
        finetune(photos, out, 2)
    with killed(workflow, "train_stages", 1):  # before another save
        finetune(photos, out, 4, resume=True)
    with pytest.raises(ConfigError, match="training.epochs is 4, not 3"):
        finetune(photos, out, 3, resume=True)
    tlkit.finetune(out=out, resume=True)
    assert_same(out, longer[4])


def test_what_has_no_part_in_how_a_run_learns_may_change(photos, longer, tmp_path):
    out = tmp_path / "run"
    with killed(SaveProgress, "on_train_batch_end", 14):
        finetune(photos, out, 4)
    tlkit.finetune(out=out, training={"gradient_health": False}, export=True, resume=True)
    assert_same(out, longer[4])
    assert not yaml.safe_load((out / "config.yaml").read_text())["training"]["gradient_health"]
    assert (out / "export").exists()


@pytest.mark.parametrize("reason", ["weights", "data"])
def test_a_run_that_is_refused_is_left_as_it_was(reason, photos, tmp_path, monkeypatch):
    out, data = tmp_path / "run", shutil.copytree(photos, tmp_path / "photos")
    with killed(SaveProgress, "on_train_batch_end", 8):
        finetune(data, out, 2)
    newest = max((out / "state").glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:-9])
    (out / ".history.csv.0123abcd.partial").touch()
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with monkeypatch.context() as patch:
        if reason == "weights":
            patch.setattr(saver, "hash_weights", lambda weights: {"path": "another"})
        else:
            next(data.rglob("*.png")).unlink()
        with pytest.raises((ConfigError, DataError), match="began with"):
            finetune(data, out, 4, resume=True)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_fewer_epochs_than_the_plan_has_are_no_more_epochs(photos, tmp_path):
    out = tmp_path / "run"
    with killed(SaveProgress, "on_train_batch_end", 5):
        finetune(photos, out, None)
    with pytest.raises(ConfigError, match="stage 'all' has 10, and a run that goes on can only have more"):
        finetune(photos, out, 4, resume=True)


def test_a_complete_run_says_that_it_cannot_have_more_epochs(longer, capsys):
    with pytest.raises(ConfigError, match="is complete, and its saves are gone.* --backbone"):
        tlkit.finetune(out=longer[4], epochs=5, resume=True)
    for again in ({}, {"epochs": 4}):
        assert tlkit.finetune(out=longer[4], resume=True, **again).path == longer[4]
        assert "is complete: there is nothing to go on with" in capsys.readouterr().err


def test_what_is_asked_of_a_complete_run_has_to_be_the_same(longer):
    with pytest.raises(
        ConfigError, match=r"goes on as it began: head.dropout is 0.3, not 0.4, seed is 0, not 99"
    ):
        tlkit.finetune(out=longer[4], resume=True, head={"dropout": 0.4}, seed=99)
    with pytest.raises(ConfigError, match="plan.name is 'head_then_all', not 'lora'"):
        tlkit.finetune(out=longer[4], resume=True, plan="lora")


@pytest.mark.parametrize(
    ("position", "line"),
    [
        ({"epoch": 1, "step": 3, "ended": False}, "Going on in stage 'head', epoch 2, after step 3."),
        ({"epoch": 1, "step": 0, "ended": False}, "Going on in stage 'head', epoch 2."),
        ({"epoch": 2, "step": 0, "ended": True}, "Going on after stage 'head'."),
    ],
)
def test_it_says_where_it_goes_on(position, line):
    saved = {"progress": {"begun": [{"name": "head"}]}, "position": position}
    assert Stopped(RunFolder(Path("run")), RunConfig(), saved).where == line


@pytest.mark.parametrize(
    ("key", "asked", "line"),
    [
        ("plan.name", "head", "plan is a list of 2, not {'name': 'head'}"),
        ("plan", [{"epochs": 2}, {"epochs": 3}], "plan[1].epochs is 2, not 3"),
        ("seed", 3, "seed is 0, not 3"),
        ("clip", None, "clip is {'norm': 1}, not None"),
        ("head.class_weight", "balanced", "head.class_weight is {'a.b': 2}, not 'balanced'"),
        ("head.class_weight.a.b", 3, "head.class_weight.a.b is 2, not 3"),
        ("head.class_weight.c", 3, "head.class_weight.c is None, not 3"),
    ],
)
def test_what_differs_is_told_by_its_key(key, asked, line):
    stages, head = [{"epochs": 2}, {"epochs": 2}], {"class_weight": {"a.b": 2}}
    assert list(_unlike(key, asked, {"plan": stages, "seed": 0, "head": head, "clip": {"norm": 1}})) == [line]


def test_a_stage_that_becomes_longer_has_more_patience_too(tmp_path):
    """Without `patience`, a stage has as much as it has epochs."""
    saves = Saves(tmp_path / "state")
    still = [Stage("head", "head", 2, 1e-12)]
    with pytest.raises(Killed):
        train_stages(make(), still, tmp_path, [KillAt(8)], Saving(saves))
    saved, _ = saves.read()
    saved["progress"]["begun"][-1]["epochs"] = 6
    trained = train_stages(make(), still, tmp_path, (), Saving(saves, resume=saved))
    assert trained.records[0].epochs_run == 6


def test_a_folder_that_was_moved_goes_on_where_it_is(photos, longer, tmp_path):
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere" / "renamed"
    with killed(SaveProgress, "on_epoch_end", 3):
        finetune(photos, out, 4)
    elsewhere.parent.mkdir()
    shutil.move(out, elsewhere)
    finetune(photos, elsewhere, 4, resume=True)
    assert_same(elsewhere, longer[4])
    assert not out.exists()
    assert yaml.safe_load((elsewhere / "config.yaml").read_text())["out"] == str(elsewhere)
