"""Data that goes away, numbers that are none, a user's own error, a clock that jumps, while a run trains: it
stops with one clear line, or goes on; it loses nothing, and goes on to the same end once that is mended."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import time
import traceback

import keras
import numpy as np
import pandas as pd
import pytest
from test_feature_cache import EXACT, HEAD, cached_run, train
from test_resume import STAGES, finish
from test_resume import assert_same as assert_same_training
from test_resume_processes import assert_same

import tlkit
from tlkit.backbones import is_batch_norm
from tlkit.config import CacheConfig
from tlkit.errors import DataError, StorageError, TrainingError
from tlkit.features import stored_tables
from tlkit.results import RunFolder, Saves
from tlkit.training import Saving, train_stages
from tlkit.training.event_log import EventLog

from conftest import make_pictures

SETTINGS = {
    "image_size": 32,
    "batch_size": 12,
    "plan": [{"train": "head", "epochs": 2}, {"train": "all", "epochs": 2}],
    "cache": {"mode": "off"},
    "export": False,
}
SLOW = pytest.mark.slow  # whole runs, which have a smaller sibling among those of every time
SMALL = {"weights": "none", "architecture": {"layers": 2, "width": 4}}
IN_EACH_EPOCH = {"memory": 0.0, "disk": 0.0}


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


def make(cache="off", **settings):
    return cached_run(CacheConfig(mode=cache, storage="float32"), dropout=0.3, **settings)


class InStage(keras.callbacks.Callback):
    """Calls a function, once, when an epoch of a stage begins; both are counted from 1."""

    def __init__(self, function, stage=2, epoch=2):
        super().__init__()
        self.function = function
        self.at = (stage, epoch)
        self.stages = itertools.count(1)  # an iterator is not saved
        self.stage = itertools.repeat(0)

    def on_train_begin(self, logs=None):
        self.stage = itertools.repeat(next(self.stages))

    def on_epoch_begin(self, epoch, logs=None):
        if (next(self.stage), epoch + 1) == self.at:
            self.function()


def nothing():
    pass


def finetune(photos, out, function=nothing, in_memory=True, callback=None, **settings):
    config = {**SMALL, "training": {"save_every": 1}, "head": {"dropout": 0.3}}
    if not in_memory:
        config["data"] = IN_EACH_EPOCH
    own = callback or InStage(function)
    settings = {**SETTINGS, **settings}
    return tlkit.finetune(photos, "image_cnn", out=out, config=config, callbacks=[own], **settings)


def require_kept(out, status="failed"):
    """A model that answers, and a save; not that the run came to its end."""
    assert RunFolder(out).read_state()["status"] == status
    assert not (out / "result.json").exists()
    assert Saves(out / "state").read()[1] == []
    assert tlkit.load(out).model.count_params() > 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """Runs without faults: of pictures in memory, and of pictures that each epoch reads."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_HOME", str(folder / "home"))
        yield {held: finetune(photos, folder / str(held), in_memory=held).path for held in (True, False)}


def damages(victim):
    def delete():
        victim.unlink()

    def cut_off():
        victim.write_bytes(victim.read_bytes()[:-50])

    def replace():
        shutil.copy(victim.parents[1] / "red" / "01.png", victim)

    return {"gone": delete, "cut off": cut_off, "another picture": replace}


@pytest.mark.parametrize(
    "what", [pytest.param("gone", marks=SLOW), pytest.param("cut off", marks=SLOW), "another picture"]
)
def test_a_file_that_goes_away_or_changes_is_named_and_the_best_model_is_kept(what, photos, whole, tmp_path):
    own = shutil.copytree(photos, tmp_path / "photos")
    out, victims = tmp_path / "run", sorted((own / "blue").glob("*.png"))
    content = {path: path.read_bytes() for path in victims}

    def damage():
        for victim in victims:
            damages(victim)[what]()

    with pytest.raises(DataError) as caught:
        finetune(own, out, damage, in_memory=False)
    message = str(caught.value)
    reason = "No such file or directory" if what == "gone" else "changed"
    begins = (
        f"12 of the files that each epoch reads are gone, or have changed since the run began: {own}/blue/"
    )
    assert message.startswith(begins)
    assert f"({reason}), " in message
    assert message.endswith(
        f"Put them back as they were. The best model so far is in {out}. When that is mended, "
        f"go on with: tlkit.finetune(out='{out}', resume=True, …) and the same callbacks"
    )
    assert "\n" not in message
    require_kept(out)
    with pytest.raises(DataError):
        finetune(own, out, in_memory=False, resume=True)
    for path, raw in content.items():
        path.write_bytes(raw)
    finetune(own, out, in_memory=False, resume=True)
    assert_same(out, whole[False])


def test_files_that_were_read_already_may_go_away(photos, whole, tmp_path):
    own = shutil.copytree(photos, tmp_path / "photos")
    run = finetune(own, tmp_path / "run", lambda: shutil.rmtree(own), export=True)
    assert_same(run.path, whole[True])
    assert (run.path / "export" / "saved_model.pb").exists()


@SLOW
def test_files_that_changed_are_not_what_an_export_is_compared_with(photos, tmp_path):
    own = shutil.copytree(photos, tmp_path / "photos")

    def spoil():
        for path in own.rglob("*.png"):
            path.write_bytes(b"not a picture any more")

    run = finetune(own, tmp_path / "run", spoil, export=True)
    assert run.export(tmp_path / "export").exists()


def test_what_a_users_own_callback_raises_comes_through(photos, whole, tmp_path, capsys):
    error = LookupError("mine")

    def my_mistake():
        raise error

    with pytest.raises(LookupError) as caught:
        finetune(photos, tmp_path / "run", my_mistake)
    assert caught.value is error
    assert caught.value.args == ("mine",)
    assert "my_mistake" in [frame.name for frame in traceback.extract_tb(caught.tb)]
    go_on = f"go on with: tlkit.finetune(out='{tmp_path / 'run'}', resume=True, …) and the same callbacks"
    assert f"Stopped by LookupError; when that is mended, {go_on}" in capsys.readouterr().err
    assert RunFolder(tmp_path / "run").read_state()["status"] == "failed"
    assert Saves(tmp_path / "run" / "state").read()[0] is not None
    finetune(photos, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole[True])


class Spoil(keras.callbacks.Callback):
    """Makes a weight NaN after a batch of the second epoch, as a step that went wrong does."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch
        self.epochs = itertools.count()
        self.is_second = itertools.repeat(False)

    def on_epoch_begin(self, epoch, logs=None):
        self.is_second = itertools.repeat(next(self.epochs) == 1)

    def on_train_batch_end(self, batch, logs=None):
        if next(self.is_second) and batch == self.batch:
            self.model.layers[-1].bias.assign([math.nan, 0.0, 0.0])


@pytest.mark.parametrize(
    ("save_every", "batch", "message"),
    [
        (2, 0, r"The loss is nan in stage 'head', epoch 2, batch 2 \(examples 0-\d+, "),
        (1, 0, r"Weights are infinite or NaN after stage 'head', epoch 2, batch 1 \(examples 0-\d+, "),
        (None, 4, r"Weights are infinite or NaN after stage 'head', epoch 2, batch 5 \(examples 0-\d+, "),
    ],
)
def test_numbers_that_are_none_stop_a_stage_and_are_kept_nowhere(save_every, batch, message, tmp_path):
    run, saves = make(save_every=save_every), Saves(tmp_path / "state")
    with pytest.raises(TrainingError, match=message) as caught:
        train_stages(run, STAGES[:1], tmp_path, [Spoil(batch)], Saving(saves))
    assert caught.value.keeps_best
    file = tmp_path / "logs" / "not_finite.csv"
    assert f"). All of them are in {file}. A lower" in str(caught.value)
    listed = pd.read_csv(file)["id"].tolist()
    assert len(listed) == run.global_batch_size
    assert f"(examples {', '.join(listed[:4])}, and " in str(caught.value)
    assert all(np.isfinite(weight.numpy()).all() for weight in run.model.weights)
    saved, damaged = saves.read()
    assert damaged == []
    assert saved["position"]["epoch"] == 1
    assert all(np.isfinite(value).all() for each in saved["model"] for value in each["values"])
    kept = make()
    kept.model.load_weights(tmp_path / "stages" / "head.weights.h5")
    for found, wanted in zip(run.model.weights, kept.model.weights, strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_moving_statistics_that_are_none_are_kept_nowhere(tmp_path):
    """They come of a batch whose variance is beyond float32; no loss and no gradient shows it."""
    run, saves = make(batch_norm="train"), Saves(tmp_path / "state")
    norm = next(layer for layer in run.model._flatten_layers() if is_batch_norm(layer))

    def spoil():
        norm.moving_variance.assign(np.full(norm.moving_variance.shape, np.inf))

    with pytest.raises(
        TrainingError, match="Weights are infinite or NaN after stage 'all', epoch 2, batch 5"
    ):
        train_stages(run, STAGES[2:], tmp_path, [InStage(spoil, stage=1)], Saving(saves))
    assert np.isfinite(norm.moving_variance.numpy()).all()
    saved, _ = saves.read()
    assert all(np.isfinite(value).all() for each in saved["model"] for value in each["values"])


@SLOW
def test_a_run_whose_loss_is_none_ends_with_its_best_model_and_can_go_on(photos, whole, tmp_path):
    out = tmp_path / "run"
    callback = InStage(nothing)

    def spoil():
        callback.model.layers[-1].bias.assign([math.nan, 0.0, 0.0])

    callback.function = spoil
    with pytest.raises(
        TrainingError, match=rf"The loss is nan .*\(examples .* best model so far is in {out}.$"
    ):
        finetune(photos, out, callback=callback)
    require_kept(out)
    finetune(photos, out, resume=True)  # what spoilt it was not the run's own
    assert_same(out, whole[True])


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    def own():
        return make(cache="disk", save_every="10min")

    expected = finish(tmp_path / "whole", STAGES[:2], own)
    real, year = time.time, 365.25 * 86400
    jumps = itertools.cycle([0.0, -20 * year, 30 * year, 86400.0, -86400.0])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    for table in stored_tables():
        os.utime(table.path / "about.json", (real() + year, real() + year))
    numbers = []
    write = Saves.write
    monkeypatch.setattr(Saves, "write", lambda self, tree: (numbers.append(1), write(self, tree)))
    found = finish(tmp_path / "jumps", STAGES[:2], own)
    assert_same_training(found, expected)
    assert len(numbers) == len(expected[1].history), "saved at the end of epochs, and not in between"
    assert all(0 < record.seconds < 600 for record in found[1].records)
    assert [record.cache["missing"] for record in found[1].records] == [0, 0], "features are not lost"


@pytest.mark.parametrize("years", [-40, 10])
def test_features_of_another_time_are_found_and_are_not_removed_while_in_use(years, tmp_path):
    _, trained = train(cached_run(EXACT), tmp_path / "a", HEAD)
    (table,) = stored_tables()
    then = time.time() + years * 365.25 * 86400
    os.utime(table.path / "about.json", (then, then))
    (table,) = stored_tables()
    assert table.used == pytest.approx(then)
    assert table.in_use
    trained.features.table.leave()
    _, again = train(cached_run(EXACT), tmp_path / "b", HEAD)
    assert again.records[0].cache["missing"] == 0
    (table,) = stored_tables()
    assert table.used == pytest.approx(time.time(), abs=600)


@pytest.mark.parametrize("moment", ["on_train_begin", "on_test_begin"])
def test_what_tensorboard_cannot_write_is_told_as_such(moment, tmp_path):
    """TensorFlow has one error for a disk that is full and for memory that ran out."""
    (tmp_path / "logs").write_text("a file, where a folder is needed")
    log = EventLog(str(tmp_path / "logs" / "head"), write_graph=False)
    log.set_model(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(StorageError, match=f"Cannot write {tmp_path}/logs/head: ") as caught:
        getattr(log, moment)()
    assert "\n" not in str(caught.value)
    assert "Op:" not in str(caught.value)


def test_saves_that_cannot_be_read_are_not_begun_anew(photos, tmp_path):
    out = tmp_path / "run"

    def stop():
        raise LookupError

    with pytest.raises(LookupError):
        finetune(photos, out, stop)
    for file in (out / "state").glob("*.npz"):
        file.write_bytes(b"damaged")
    with pytest.raises(StorageError, match=f"No save of {out} is whole: .* is damaged: .*Start anew"):
        finetune(photos, out, resume=True)
    assert len(list((out / "state").glob("*.npz"))) == 2


def test_what_a_process_that_died_was_writing_is_removed(photos, whole, tmp_path):
    out = tmp_path / "run"

    def die():
        (out / "state" / ".000009.0123abcd.partial.npz").write_bytes(b"half")
        (out / ".1.0123abcd.partial").mkdir()
        (out / ".mine").write_text("not tlkit's")
        raise SystemExit(9)

    with pytest.raises(SystemExit):
        finetune(photos, out, die)
    assert json.loads((out / "state.json").read_text())["status"] == "interrupted"
    finetune(photos, out, resume=True)
    assert not [*out.rglob(".*.partial*")]
    assert (out / ".mine").exists()
    assert_same(out, whole[True])
