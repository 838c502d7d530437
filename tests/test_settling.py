"""Layer groups that have settled freeze, the rest goes on as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from test_feature_cache import EXACT, OFF, Losses, cached_run

from tlkit.config import TrainingConfig
from tlkit.errors import ConfigError
from tlkit.plans import Stage, make_plan
from tlkit.training import settling, train_stages
from tlkit.training.best import checkpoint, epoch_log, put_back_earlier
from tlkit.training.optimizing.schedules import make_schedule
from tlkit.training.settling import count_settled

NAMES = ("stem", "a", "b", "c")


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("now", "percentile", "expected"),
    [
        ((1.0, 1.0, 0.5, 0.1), 50, 2),
        ((0.1, 1.0, 1.0, 1.0), 50, 0),  # the lowest has not, so none above it freezes
        ((1.0, 0.9, 0.5, 0.1), 90, 3),
        ((1.0, 1.0, 1.0, 1.0), 50, 0),  # all alike: nothing tells them apart
        ((0.0, 0.0, 0.0, 0.0), 50, 0),
    ],
)
def test_the_lowest_groups_that_changed_least_have_settled(now, percentile, expected):
    before = dict.fromkeys(NAMES, 1.0)
    assert count_settled(NAMES, before, dict(zip(NAMES, now, strict=True)), percentile) == expected


def test_nothing_settles_before_there_are_two_epochs_to_compare():
    assert count_settled(NAMES, {}, dict.fromkeys(NAMES, 1.0), 50) == 0
    assert count_settled((), {}, {}, 50) == 0


def test_settled_groups_freeze_and_their_features_are_read(tmp_path):
    run = cached_run(EXACT)
    stage = Stage("all", "all", 8, 0.01, auto_freeze=80.0)
    trained = train_stages(run, [stage], tmp_path)
    counts = [len(record.trained_groups) for record in trained.records]
    assert len(counts) > 1, "some group settles within eight epochs"
    assert counts == sorted(set(counts), reverse=True)
    assert sum(record.epochs_run for record in trained.records) == 8
    assert [record.cache["mode"] for record in trained.records] == ["off", *["disk"] * (len(counts) - 1)]
    assert all(record.frozen_unchanged for record in trained.records)
    assert list(trained.history["stage"].unique()) == [record.name for record in trained.records]


def test_an_epoch_of_one_step_at_a_rate_of_nothing_settles_nothing(tmp_path):
    run = cached_run(EXACT, n=8, batch_size=8)
    stage = Stage("all", "all", 3, 0.01, auto_freeze=99.0, schedule="linear")
    trained = train_stages(run, [stage], tmp_path)
    assert sum(record.epochs_run for record in trained.records) == 3


def test_what_follows_begins_with_the_last_weights_and_not_with_the_best(tmp_path):
    run = cached_run(EXACT)
    seen = []

    class Weights(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(("begin", [weight.numpy() for weight in run.model.weights]))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(("end", [weight.numpy() for weight in run.model.weights]))

    stage = Stage("all", "all", 5, 0.5, patience=5, auto_freeze=80.0)
    trained = train_stages(run, [stage], tmp_path, [Weights()])
    assert len(trained.records) > 1
    for (_, end), (_, begin) in zip(seen[1:-1:2], seen[2::2], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(end, begin, strict=True))


class Guess(keras.callbacks.Callback):
    """Makes the model answer one class in each epoch, so that its accuracy is the share of that class."""

    def __init__(self, run, answers):
        super().__init__()
        self.run = run
        self.answers = list(answers)

    def on_epoch_begin(self, epoch, logs=None):
        if self.answers:
            head, answer = self.run.model.layers[-1], self.answers.pop(0)
            head.kernel.assign(np.zeros(head.kernel.shape))
            head.bias.assign(10.0 * np.eye(3)[answer])
            stem = self.run.groups[0].layers[0].kernel
            if stem.trainable:
                stem.assign(np.full(stem.shape, 0.01 * (1 + answer)))


def guessing_run(cache=OFF, **training):
    """A run that learns nothing, and whose validation has six examples of class 0, four of 1 and two of 2."""
    run = cached_run(cache, schedule="constant", warmup=0.0, gradient_health=False, **training)
    targets = np.repeat([0, 1, 2], [6, 4, 2]).astype("int32")
    validation = replace(run.dataset.splits["validation"], targets=targets)
    splits = {**run.dataset.splits, "validation": validation}
    return replace(run, dataset=replace(run.dataset, splits=splits))


@pytest.fixture
def settles(monkeypatch):
    """Lets the lowest group settle in one epoch, counted from 0 over all parts."""

    def at(settling_epoch):
        epochs = iter(range(100))
        monkeypatch.setattr(settling, "count_settled", lambda *_: int(next(epochs) == settling_epoch))

    return at


@pytest.mark.parametrize(
    ("answers", "settles_in", "patience", "epochs_run"),
    [
        ((0, 2), 1, None, [2]),  # nothing follows the last epoch
        ((0, 1, 2), 1, None, [2, 1]),  # the best epoch was in the part before
        ((2, 1, 0), 1, None, [2, 1]),  # it is in the last part
        ((2, 0, 1, 1, 1, 1), 1, 2, [2, 2]),  # patience begins in one part and ends in the next
        ((0, 1, 1, 1, 1, 1), 1, 2, [2, 1]),
        ((0, 1, 1, 1, 1, 1), 2, 2, [3]),  # what ends the stage ends it, whatever settles
        ((0, 1, 1, 1, 1, 1), 1, None, [2, 4]),  # without patience nothing does
    ],
)
def test_the_parts_of_a_stage_have_one_best_epoch_and_one_patience(
    answers, settles_in, patience, epochs_run, settles, tmp_path, capfd
):
    settles(settles_in)
    run = guessing_run(restore_best=patience is None)
    stage = Stage("all", "all", len(answers), 1e-12, patience=patience, auto_freeze=50.0)
    trained = train_stages(run, [stage], tmp_path, [Guess(run, answers)])
    assert [record.epochs_run for record in trained.records] == epochs_run
    assert np.argmax(run.model.layers[-1].bias) == 0
    assert ("Settled" in capfd.readouterr().err) == (len(epochs_run) > 1)


def test_what_was_frozen_since_comes_back_with_the_best_epoch_and_its_stored_features_go(settles, tmp_path):
    found = {}
    for name, cache in (("with", EXACT), ("without", OFF)):
        settles(1)
        run = guessing_run(cache, restore_best=True)
        stages = [Stage("all", "all", 3, 1e-12, auto_freeze=50.0), Stage("head", "head", 2, 0.01)]
        losses = Losses()
        trained = train_stages(run, stages, tmp_path / name, [Guess(run, (0, 1, 2)), losses])
        np.testing.assert_allclose(run.groups[0].layers[0].kernel, 0.01, rtol=1e-5)
        found[name] = losses.values
    assert [record.cache["mode"] for record in trained.records] == ["off"] * 3
    np.testing.assert_allclose(found["with"], found["without"], atol=1e-5)
    settles(1)
    run = guessing_run(EXACT, restore_best=True)
    trained = train_stages(run, stages[:1], tmp_path / "last", [Guess(run, (0, 1, 2))])
    assert [record.cache["mode"] for record in trained.records] == ["off", "disk"]
    assert trained.features is None, "the evaluation would read those of other weights"


@pytest.mark.parametrize(("latest", "comes_back"), [(0.7, 1.0), (0.8, 1.0), (0.9, None)])
def test_of_equal_epochs_the_first_comes_back_and_a_later_better_one_stays(latest, comes_back, tmp_path):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    for folder in ("stages", "logs"):
        (tmp_path / folder).mkdir()
    for number, (name, value) in enumerate({"a": 0.8, "b": 0.8, "c": latest}.items(), 1):
        model.set_weights([np.full((1, 1), number)])
        stage = Stage(name, "all", 1, 0.1, parts_before=("a", "b"))
        model.save_weights(checkpoint(tmp_path, stage))
        epoch_log(tmp_path, stage).write_text(f"epoch,val_accuracy\n0,0.1\n1,{value}\n")
    assert put_back_earlier(model, stage, tmp_path, "val_accuracy", "max") == (comes_back is not None)
    assert model.get_weights()[0].item() == (comes_back or 3.0)


def test_a_part_has_a_name_of_its_own():
    stage = Stage("top3", 3, 5, 0.1)
    assert stage.named_unlike(["top3", "all", "top3_2"]).name == "top3_3"
    assert stage.named_unlike(["all"]) == stage


def test_the_schedule_goes_on_where_a_stage_was_cut():
    whole = make_schedule("cosine", 0.1, 100, 0.1)
    rest = make_schedule("cosine", 0.1, 100, 0.1, first_step=40)
    np.testing.assert_array_equal(
        [whole(step) for step in range(40, 100)], [rest(step) for step in range(60)]
    )
    stage = Stage("all", "all", 10, 0.1, auto_freeze=50.0).without(2, 6, 3)
    assert (stage.name, stage.train, stage.epochs, stage.epochs_before) == ("top4", 4, 7, 3)
    assert (stage.without(1, 6, 2).epochs_before, stage.without(1, 6, 2).train) == (5, 3)
    assert stage.without(1, 6, 7) is None
    assert stage.without(0, 6, 1) is None


def test_the_plan_is_the_head_and_then_everything():
    head, everything = make_plan({"name": "auto_freeze", "epochs": 4, "percentile": 30}, 5)
    assert (head.train, head.auto_freeze) == ("head", None)
    assert (everything.train, everything.epochs, everything.auto_freeze) == ("all", 4, 30.0)


def test_a_schedule_that_waits_for_a_plateau_is_refused():
    with pytest.raises(ConfigError, match="plateau do not go together"):
        make_plan("auto_freeze", 5, TrainingConfig(schedule="plateau"))
