"""The learning rate over a stage."""

from __future__ import annotations

import typing

import keras
import numpy as np
import pytest

from tlkit.config.plan import Schedule
from tlkit.plans import Stage
from tlkit.training import train_stages
from tlkit.training.optimizing.schedules import SHAPES, StageSchedule, make_schedule

from test_training import make_run

STEPS = 200
FUNCTIONS = ("cosine", "linear", "one_cycle", "slanted_triangular")


def rates(kind, steps=STEPS, **options):
    schedule = make_schedule(kind, 0.5, steps, **options)
    return np.array([float(schedule(step)) for step in range(steps)])


def test_every_schedule_of_the_config_has_a_shape():
    assert set(SHAPES) == set(typing.get_args(Schedule))


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("warmup", [None, 0.0, 0.3])
def test_a_rate_rises_to_its_peak_and_falls_from_there(kind, warmup):
    curve = rates(kind, warmup=warmup)
    peak = int(STEPS * (SHAPES[kind].warmup if warmup is None else warmup))
    assert curve.argmax() == peak
    assert curve[peak] == pytest.approx(0.5)
    assert (np.diff(curve[: peak + 1]) > 0).all()
    assert (np.diff(curve[peak:]) < 0).all()
    assert curve.min() >= 0


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stage_of_a_few_steps_has_a_rate(kind, steps):
    curve = rates(kind, steps)
    assert np.isfinite(curve).all()
    assert curve.max() > 0


def test_cosine_is_that_of_keras():
    keras_own = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=180, warmup_target=0.5, warmup_steps=20
    )
    expected = [float(keras_own(step)) for step in range(STEPS)]
    np.testing.assert_allclose(rates("cosine", warmup=0.1), expected, atol=1e-7)


def test_slanted_triangular_is_that_of_the_paper():
    cut_frac, ratio, cut = 0.1, 32, 20
    expected = []
    for t in range(STEPS):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        expected.append(0.5 * (1 + p * (ratio - 1)) / ratio)
    np.testing.assert_allclose(rates("slanted_triangular"), expected, rtol=1e-5)


def test_one_cycle_starts_and_ends_low():
    curve = rates("one_cycle")
    assert curve[0] == pytest.approx(0.5 / 25)
    assert curve.argmax() == 50
    assert float(make_schedule("one_cycle", 0.5, STEPS)(STEPS)) == pytest.approx(0.5 / 25e4, abs=1e-7)


def test_linear_ends_at_zero():
    schedule = make_schedule("linear", 0.5, STEPS, warmup=0.5)
    assert [float(schedule(step)) for step in (50, 100, 150, 200, 300)] == [0.25, 0.5, 0.25, 0.0, 0.0]


def test_a_schedule_reads_back_the_same():
    schedule = make_schedule("one_cycle", 0.5, STEPS, 0.3)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert isinstance(again, StageSchedule)
    assert again.get_config() == schedule.get_config()


class Rates(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate.numpy()))


def test_a_constant_rate_warms_up_and_stays(tmp_path):
    run, watch = make_run(schedule="constant", warmup=0.4), Rates()
    train_stages(run, [Stage("head", "head", 2, 0.5)], tmp_path, [watch])
    np.testing.assert_allclose(watch.seen, [0.0, 0.125, 0.25, 0.375, *[0.5] * 6])


def test_on_a_plateau_the_rate_falls(tmp_path):
    run = make_run(warmup=0.0)
    history = train_stages(run, [Stage("head", "head", 6, 1e-12, schedule="plateau")], tmp_path).history
    np.testing.assert_allclose(history["learning_rate"] / 1e-12, [1, 1, 1, 0.3, 0.3, 0.09], rtol=1e-5)


def test_each_stage_has_its_own_schedule(tmp_path):
    run, watch = make_run(schedule="linear", warmup=0.0), Rates()
    stages = [Stage("a", "head", 1, 0.5), Stage("b", "head", 1, 0.1, schedule="constant")]
    train_stages(run, stages, tmp_path, [watch])
    np.testing.assert_allclose(watch.seen, [0.4, 0.3, 0.2, 0.1, 0.0, *[0.1] * 5], atol=1e-7)
