"""A run that stopped goes on as if it had not: bit for bit where operations are deterministic."""

from __future__ import annotations

import signal
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from test_feature_cache import cached_run

from tlkit.config import CacheConfig
from tlkit.errors import ConfigError
from tlkit.plans import Stage
from tlkit.results import Saves
from tlkit.training import Saving, require_own_save, train_stages

STAGES = (
    Stage("head", "head", 2, 0.01),
    Stage("top1", 1, 2, 0.01, patience=1),
    Stage("all", "all", 2, 0.003),
)
STEPS = 5  # of an epoch: 40 examples in batches of 8


class Killed(BaseException):
    """What no handler knows."""


class KillAt(keras.callbacks.Callback):
    """Ends training after so many steps over all stages, or at the end of the epoch that they end."""

    def __init__(self, step, at_epoch_end=False):
        super().__init__()
        self.left = iter(range(step - 1))  # an iterator is not saved: the next one counts for itself
        self.at_epoch_end = at_epoch_end
        self.is_over = False

    def on_train_batch_end(self, batch, logs=None):
        self.is_over = next(self.left, None) is None
        if self.is_over and not self.at_epoch_end:
            raise Killed

    def on_epoch_end(self, epoch, logs=None):
        if self.is_over:
            raise Killed


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


def make(cache="off", **settings):
    cache = CacheConfig(mode=cache, storage="float32")
    return cached_run(cache, dropout=0.3, save_every=2, **settings)


def finish(folder, stages=STAGES, make=make, stops=()):
    """Train to the end, each time killed after so many steps and gone on with; weights, history, resumed."""
    saves = Saves(folder / "state")
    for stop in stops:
        saved, _ = saves.read()
        kill = stop if isinstance(stop, KillAt) else KillAt(stop)
        with pytest.raises(Killed):
            train_stages(make(), stages, folder, [kill], Saving(saves, resume=saved))
    saved, _ = saves.read()
    run = make()
    trained = train_stages(run, stages, folder, (), Saving(saves, resume=saved))
    return [weight.numpy() for weight in run.model.weights], trained


def assert_same(found, expected):
    for value, wanted in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(value, wanted)
    assert found[1].history.to_csv() == expected[1].history.to_csv()
    names = [record.name for record in expected[1].records]
    assert [record.name for record in found[1].records] == names
    assert [record.best_value for record in found[1].records] == [
        record.best_value for record in expected[1].records
    ]


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 7, 10, 11, 18, 23, 29])
def test_a_killed_run_ends_as_the_uninterrupted_one(stop, tmp_path):
    expected = finish(tmp_path / "whole", stages=STAGES)
    found = finish(tmp_path / "killed", stages=STAGES, stops=[stop])
    assert_same(found, expected)
    assert len(found[1].resumed) == (stop > 2)  # the first save is after two steps, and after this callback


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"ema": 0.9}, STAGES),
        ({"schedule": "plateau"}, STAGES),
        ({"augment": "default", "accumulate": 2}, STAGES),
        ({"optimizer": "sgd", "restore_best": True}, STAGES),
        ({"cache": "memory"}, STAGES),
        ({"cache": "disk"}, STAGES),
        ({"batch_norm": "train"}, STAGES),
        (
            {"cache": "memory", "optimizer": "sgd"},
            (Stage("all", "all", 4, 0.01, auto_freeze=90.0), Stage("last", 1, 1, 0.01)),
        ),
    ],
    ids=str,
)
def test_it_does_so_with_every_kind_of_state(settings, stages, tmp_path):
    def own():
        return make(**settings)

    expected = finish(tmp_path / "whole", stages, own)
    stops = [KillAt(3), KillAt(5, at_epoch_end=True), 4, 9]
    found = finish(tmp_path / "killed", stages, own, stops)
    assert_same(found, expected)
    assert len(found[1].resumed) == len(stops)


class TerminateAt(keras.callbacks.Callback):
    """As SIGTERM does in a training step, or in a step of validation."""

    def __init__(self, saving, step, validating=False):
        super().__init__()
        self.saving = saving
        self.left = iter(range(step - 1))
        self.validating = validating

    def on_train_batch_end(self, batch, logs=None):
        if not self.validating:
            self._count()

    def on_test_batch_end(self, batch, logs=None):
        if self.validating:
            self._count()

    def _count(self):
        if next(self.left, None) is None and not self.saving.stop.is_asked:
            self.saving.stop.ask(signal.SIGTERM)


@pytest.mark.parametrize(
    ("step", "validating", "position", "ema"),
    [
        (3, False, (0, 3), None),
        (STEPS, False, (0, 5), None),
        (2 * STEPS, False, (1, 5), 0.9),
        (1, True, (0, 5), None),
        (4, True, (1, 5), 0.9),
    ],
)
def test_a_run_that_is_told_to_end_ends_after_that_step(step, validating, position, ema, tmp_path):
    def own():
        return make(ema=ema)

    expected = finish(tmp_path / "whole", make=own)
    folder = tmp_path / "told"
    saving = Saving(Saves(folder / "state"))
    with pytest.raises(SystemExit) as error:
        train_stages(own(), STAGES, folder, [TerminateAt(saving, step, validating)], saving)
    assert error.value.code == 143
    saved, _ = saving.saves.read()
    assert (saved["position"]["epoch"], saved["position"]["step"]) == position
    assert_same(finish(folder, make=own), expected)


def test_what_callbacks_make_when_an_epoch_begins_is_made_again(tmp_path):
    class Seen(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.seen = {epoch}  # a set is not saved
            self.epochs = [*getattr(self, "epochs", []), epoch]

        def on_train_batch_end(self, batch, logs=None):
            self.seen.add(batch)

    saves = Saves(tmp_path / "state")
    with pytest.raises(Killed):
        train_stages(make(), STAGES[:1], tmp_path, [Seen(), KillAt(8)], Saving(saves))
    seen = Seen()
    train_stages(make(), STAGES[:1], tmp_path, [seen, KillAt(100)], Saving(saves, resume=saves.read()[0]))
    assert seen.epochs == [0, 1]
    assert seen.seen == {1, 2, 3, 4}


def test_a_save_holds_no_frozen_weights(tmp_path):
    saves = Saves(tmp_path / "state")
    with pytest.raises(Killed):
        train_stages(make(restore_best=True), STAGES, tmp_path, [KillAt(8)], Saving(saves))
    saved, _ = saves.read()
    assert len(saved["untouched"]) > 10
    best = next(each["state"] for each in saved["callbacks"] if each["kind"] == "BestEpoch")
    held = sum(value is not None for value in best["best_weights"])
    assert held == len(best["best_weights"]) - len(saved["untouched"])


def test_what_callbacks_of_ones_own_count_goes_on(tmp_path):
    class Count(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.batches = 0
            self.losses = []

        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1

        def on_epoch_end(self, epoch, logs=None):
            self.losses.append(logs["loss"])

    saves = Saves(tmp_path / "state")
    with pytest.raises(Killed):
        train_stages(make(), STAGES[:1], tmp_path, [Count(), KillAt(8)], Saving(saves))
    count = Count()
    train_stages(make(), STAGES[:1], tmp_path, [count, KillAt(100)], Saving(saves, resume=saves.read()[0]))
    assert count.batches == 2 * STEPS
    assert len(count.losses) == 2


def test_a_damaged_save_goes_back_to_the_one_before(tmp_path):
    expected = finish(tmp_path / "whole")
    saves = Saves(tmp_path / "killed" / "state")
    with pytest.raises(Killed):
        train_stages(make(), STAGES, tmp_path / "killed", [KillAt(17)], Saving(saves))
    newest = max((tmp_path / "killed" / "state").glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:-100])
    saved, damaged = saves.read()
    assert len(damaged) == 1
    run = make()
    trained = train_stages(run, STAGES, tmp_path / "killed", (), Saving(saves, resume=saved))
    assert_same(([weight.numpy() for weight in run.model.weights], trained), expected)


def test_a_save_beside_other_pretrained_weights_is_refused(tmp_path):
    saves = Saves(tmp_path / "state")
    with pytest.raises(Killed):
        train_stages(make(), STAGES, tmp_path, [KillAt(8)], Saving(saves))
    with pytest.raises(ConfigError, match="not those that the run began with"):
        require_own_save(make(seed=1), saves.read()[0])
    require_own_save(make(), saves.read()[0])


@pytest.mark.parametrize("stop", [KillAt(3), KillAt(5, at_epoch_end=True)])
def test_a_save_takes_no_memory_once_it_is_put_back(stop, tmp_path):
    saves, left = Saves(tmp_path / "state"), []
    with pytest.raises(Killed):
        train_stages(make(), STAGES[:1], tmp_path, [stop], Saving(saves))
    saved, _ = saves.read()
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: left.append(dict(saved)))
    train_stages(make(), STAGES[:1], tmp_path, [look], Saving(saves, resume=saved))
    assert left
    assert not any(left)


def test_the_proof_spans_the_stop(tmp_path):
    saves = Saves(tmp_path / "state")
    with pytest.raises(Killed):
        train_stages(make(), STAGES, tmp_path, [KillAt(13)], Saving(saves))
    saved, _ = saves.read()
    assert saved["progress"]["begun"][-1]["name"] == "top1"
    saved["frozen"][0] = "0" * 64
    with pytest.raises(Exception, match="moved"):
        train_stages(make(), STAGES, tmp_path, (), Saving(saves, resume=saved))


class StopsEarly(keras.callbacks.Callback):
    """Ends every stage after two steps."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.stop_training = True


class KilledInValidation(keras.callbacks.Callback):
    def on_test_begin(self, logs=None):
        raise Killed


def test_a_stage_that_a_callback_has_stopped_stays_stopped(tmp_path):
    found = []
    for name, first in (("whole", []), ("killed", [KilledInValidation()])):
        saves = Saves(tmp_path / name / "state")
        with pytest.raises(Killed) if first else nullcontext():
            train_stages(make(), STAGES[:1], tmp_path / name, [StopsEarly(), *first], Saving(saves))
        saved, _ = saves.read()
        run = make()
        trained = train_stages(run, STAGES[:1], tmp_path / name, [StopsEarly()], Saving(saves, resume=saved))
        found.append(([weight.numpy() for weight in run.model.weights], trained))
    assert len(found[0][1].history) == 1
    assert_same(*found)
