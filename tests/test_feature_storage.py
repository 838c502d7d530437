"""Where features cannot be stored, a run goes on without them, or ends with its best model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from test_feature_cache import EXACT, HEAD, OFF, TOP, cached_run, train

import tlkit
from tlkit.config import CacheConfig
from tlkit.data import Manifest
from tlkit.errors import StorageError
from tlkit.features import DiskTable, MemoryTable, stored_tables
from tlkit.features.users import register, unregister
from tlkit.plans import Stage
from tlkit.preprocessing.views import plain_view
from tlkit.training import features_of_split, require_room_for
from tlkit.training import stages as stage_loop
from tlkit.training.cache.features import Features, Overflow

from conftest import make_pictures
from test_training import make_examples

ROOM_FOR_HEAD = 10_000  # bytes: 52 examples take 32 each below the head, and 384 below the last group


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


def fill_the_disk(monkeypatch, free_tables=0):
    """No table after the first `free_tables` can be written to."""
    write, seen = DiskTable._write, []

    def write_or_fail(self, arrays, count):
        if self.folder not in seen:
            seen.append(self.folder)
        if seen.index(self.folder) >= free_tables:
            raise OSError(28, "No space left on device")
        write(self, arrays, count)

    monkeypatch.setattr(DiskTable, "_write", write_or_fail)


def limited(limit, mode="disk"):
    return CacheConfig(mode=mode, storage="float32", limit=limit)


def test_a_disk_that_fills_up_gives_way_to_memory(tmp_path, monkeypatch, capsys):
    fill_the_disk(monkeypatch, free_tables=1)
    stages = replace(HEAD, epochs=4), replace(TOP, epochs=4)
    with_cache, trained = train(cached_run(CacheConfig(storage="float32")), tmp_path / "a", *stages)
    without, _ = train(cached_run(OFF), tmp_path / "b", *stages)
    np.testing.assert_allclose(with_cache, without, atol=1e-6)
    first, second = (record.cache for record in trained.records)
    assert (first["mode"], second["mode"]) == ("disk", "memory")
    assert "not on the disk: " in second["reason"]
    assert "No space left on device" in second["reason"]
    assert second["reason"] in capsys.readouterr().err
    assert len(stored_tables()) == 1, "what could not be filled leaves nothing"


def test_a_disk_that_fills_up_is_done_without_where_memory_is_too_small(tmp_path, monkeypatch, capsys):
    fill_the_disk(monkeypatch)
    monkeypatch.setattr("tlkit.training.cache.choice.USABLE_MEMORY", 0.0)
    _, trained = train(cached_run(CacheConfig()), tmp_path, replace(HEAD, epochs=9))
    assert trained.features is None
    assert trained.records[0].cache["mode"] == "off"
    assert "No stored features: " in capsys.readouterr().err
    assert "No space left on device" in trained.records[0].cache["reason"]


def test_room_that_was_taken_meanwhile_gives_way_to_memory(tmp_path, monkeypatch):
    def refuse(needed, limit, keep=None):
        raise StorageError("taken")

    monkeypatch.setattr("tlkit.training.cache.stage.make_room", refuse)
    _, trained = train(cached_run(CacheConfig()), tmp_path, replace(HEAD, epochs=9))
    assert trained.records[0].cache["mode"] == "memory"
    assert trained.records[0].cache["reason"].endswith("; not on the disk: taken")


@pytest.mark.parametrize("why", ["full", "limit"])
def test_features_that_have_to_be_on_the_disk_end_a_run_with_its_best_model(why, tmp_path, monkeypatch):
    if why == "full":
        fill_the_disk(monkeypatch, free_tables=1)
    run = cached_run(EXACT if why == "full" else limited(ROOM_FOR_HEAD))

    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                bias = self.model.layers[-1].bias
                bias.assign(bias + 100.0)

    with pytest.raises(StorageError, match="No space left|limit of 10,000") as caught:
        stage_loop.train_stages(run, [replace(HEAD, epochs=2), TOP], tmp_path, [Worse()])
    assert caught.value.keeps_best
    best = cached_run().model
    best.load_weights(tmp_path / "stages" / "head.weights.h5")
    for weight, wanted in zip(run.model.get_weights(), best.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, wanted)


def test_a_limit_that_holds_no_stage_is_refused_before_any():
    run = cached_run(limited(ROOM_FOR_HEAD))
    require_room_for(run, [HEAD, replace(HEAD, name="again")])
    with pytest.raises(StorageError, match=r"Stage 'top': .* below the limit of 10,000 .*cache.limit"):
        require_room_for(run, [HEAD, TOP])
    require_room_for(cached_run(limited(0, mode="auto")), [HEAD, TOP])
    require_room_for(cached_run(), [HEAD, TOP])
    assert stored_tables() == []


def test_features_that_are_there_need_no_room(tmp_path):
    train(cached_run(), tmp_path, HEAD)
    require_room_for(cached_run(limited(1)), [HEAD])


def finetune(folder, **settings):
    options = {
        "image_size": 32,
        "plan": [{"train": "head", "epochs": 2}, {"train": 1, "epochs": 2}],
        "cache": {"mode": "disk"},
        "config": {"weights": "none"},
        "export": False,
        "out": folder / "run",
    }
    return tlkit.finetune(make_pictures(folder / "photos"), "image_cnn", **{**options, **settings})


def test_a_limit_that_holds_nothing_leaves_no_run_folder(tmp_path):
    with pytest.raises(StorageError, match="Stage 'stage1': .*limit of 0"):
        finetune(tmp_path, cache={"mode": "disk", "limit": 0})
    assert not (tmp_path / "run").exists()


def fail_in_the_second_stage(monkeypatch):
    store, calls = stage_loop.store_features, []

    def store_once(*args):
        calls.append(args)
        if len(calls) > 1:
            raise StorageError("The disk is full")
        return store(*args)

    monkeypatch.setattr(stage_loop, "store_features", store_once)


def test_a_run_that_the_disk_ends_leaves_its_best_model(tmp_path, monkeypatch):
    fail_in_the_second_stage(monkeypatch)
    with pytest.raises(
        StorageError, match=r"The disk is full\. The best model so far is in .*run\. When that "
    ):
        finetune(tmp_path)
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "failed"
    assert tlkit.load(tmp_path / "run").model.count_params() > 0


def test_a_model_that_cannot_be_saved_either_is_not_promised(tmp_path, monkeypatch):
    fail_in_the_second_stage(monkeypatch)

    def refuse(model, folder):
        raise StorageError("no room for the model")

    monkeypatch.setattr(sys.modules["tlkit.workflows.ending"], "save_model", refuse)
    with pytest.raises(
        StorageError, match="^The disk is full. When that is mended, go on with: tlkit finetune"
    ):
        finetune(tmp_path)
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "failed"


def with_test_split(run, n=400):
    examples = make_examples(n, seed=2)
    table = pd.DataFrame({"id": examples.ids, "hash": [f"hash of {name}" for name in examples.ids]})
    table = pd.concat([run.dataset.manifest.table, table], ignore_index=True)
    splits = {**run.dataset.splits, "test": examples}
    manifest = Manifest(table, run.dataset.manifest.classes)
    return replace(run, dataset=replace(run.dataset, splits=splits, manifest=manifest))


def test_the_limit_counts_what_is_stored_for_the_test_split(tmp_path, capsys):
    run = with_test_split(cached_run(limited(ROOM_FOR_HEAD)))
    _, trained = train(run, tmp_path, HEAD)
    assert features_of_split(run, trained.features, "validation") is trained.features
    capsys.readouterr()
    assert features_of_split(run, trained.features, "test") is None
    assert "No stored features of test: " in capsys.readouterr().err
    assert sum(table.size for table in stored_tables()) < ROOM_FOR_HEAD
    run = replace(run, cache=EXACT)
    assert features_of_split(run, trained.features, "test") is trained.features
    assert not trained.features.count_missing(run.dataset.splits["test"], plain_view())
    assert features_of_split(run, None, "test") is None


def test_what_is_read_once_is_not_stored_in_memory(tmp_path):
    run = with_test_split(cached_run(CacheConfig(mode="memory")))
    _, trained = train(run, tmp_path, HEAD)
    assert isinstance(trained.features.table, MemoryTable)
    assert features_of_split(run, trained.features, "test") is None
    assert len(trained.features.table) == 52


def test_a_finished_training_is_measured_also_where_its_features_cannot_be_stored(
    tmp_path, monkeypatch, capsys
):
    plain = finetune(tmp_path / "plain")
    fill = Features.fill

    def fail_at_the_end(self, examples, views, name, below=None):
        if name == "test":
            raise Overflow("too large for float16")
        fill(self, examples, views, name, below)

    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "another home"))
    monkeypatch.setattr(Features, "fill", fail_at_the_end)
    capsys.readouterr()
    run = finetune(tmp_path / "failing")
    assert "No stored features of test: too large for float16" in capsys.readouterr().err
    assert run.metrics["accuracy"] == plain.metrics["accuracy"]
    assert run.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-4)


def test_features_that_a_stage_does_not_start_from_make_room_for_its_own(tmp_path):
    """20 kB above the second group, then 53 kB above the first."""
    _, trained = train(cached_run(limited(60_000)), tmp_path, TOP, Stage("lower", 2, 1, 0.01))
    assert [record.cache["mode"] for record in trained.records] == ["disk", "disk"]
    assert [table.key for table in stored_tables()] == [trained.records[1].cache["key"]]


def test_what_a_process_that_has_ended_left_as_a_user_goes_with_the_next_one(tmp_path):
    (tmp_path / "table" / "users").mkdir(parents=True)
    (tmp_path / "table" / "users" / "1-dead").touch()
    one, other = register(tmp_path / "table"), register(tmp_path / "table")
    users = [Path(user.lock_file).name for user in (one, other)]
    assert sorted(path.name for path in (tmp_path / "table" / "users").iterdir()) == sorted(users)
    for user in (one, other):
        unregister(user)
    assert not any((tmp_path / "table" / "users").iterdir())
