"""The learning-rate range test: what it reads from a curve, and that it leaves no trace."""

from __future__ import annotations

import random
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tlkit.config import TrainingConfig
from tlkit.errors import ConfigError, TrainingError
from tlkit.plans import Stage
from tlkit.training import train_stages
from tlkit.training.lr_range import RisingRate, measure_rates, smooth, suggest_rates
from tlkit.training.random_state import random_state_unchanged

from test_training import make_run, moved, values

HEAD = Stage("head", "head", 2, 0.01)
ALL = Stage("all", "all", 2, 0.005, layer_decay=0.5)


def make_curve(losses, lowest=1e-6, highest=1.0):
    rates = np.geomspace(lowest, highest, len(losses))
    return pd.DataFrame({"learning_rate": rates, "loss": losses, "smoothed": losses})


def draws():
    """One number from every source of chance that a program may draw from."""
    return [
        random.random(),
        float(np.random.random()),
        float(tf.random.uniform([])),
        float(tf.random.get_global_generator().uniform([])),
        float(keras.random.uniform([])),
        int(keras.layers.Dropout(0.5).seed_generator.state.numpy()[0]),
    ]


def test_the_rates_rise_exponentially_from_the_lowest_to_the_highest():
    curve = measure_rates(make_run(), [HEAD], lowest=1e-6, highest=1e-3, steps=12)
    np.testing.assert_allclose(curve["learning_rate"], np.geomspace(1e-6, 1e-3, 12))
    assert list(curve["step"]) == list(range(1, 13))
    np.testing.assert_allclose(curve["smoothed"], smooth(curve["loss"]))


def test_the_losses_are_those_of_single_batches():
    """At rates that change nothing, every epoch of the same batches has the same losses."""
    curve = measure_rates(make_run(n=16, batch_size=16), [HEAD], lowest=1e-12, highest=1e-11, steps=10)
    np.testing.assert_allclose(curve["loss"], curve["loss"][0], rtol=1e-5)


def test_the_test_ends_where_the_loss_diverges():
    run = make_run(clip=None, optimizer="sgd", momentum=0.0, weight_decay=0.0)
    curve = measure_rates(run, [ALL], highest=1e4)
    assert 30 < len(curve) < 100
    assert not curve["smoothed"].iloc[-1] <= 4 * curve["smoothed"].min()
    assert (curve["smoothed"].iloc[:-1] <= 4 * curve["smoothed"].cummin().iloc[:-1]).all()


def test_smoothing_does_not_lean_towards_zero():
    np.testing.assert_allclose(smooth([3.0] * 5), 3.0)
    assert smooth([1.0, 2.0])[1] == pytest.approx((0.9 * 0.1 * 1 + 0.1 * 2) / (1 - 0.9**2))


def test_the_suggestions_are_the_steepest_place_the_middle_of_the_fall_and_a_tenth_of_the_minimum():
    flat, fall, rise = np.full(40, 2.0), np.linspace(2.0, 1.0, 20), np.linspace(1.1, 8.0, 20)
    fall[10:] -= 0.3  # the steepest place
    curve = make_curve(np.concatenate([flat, fall, rise]))
    rates = curve["learning_rate"].to_numpy()
    found = suggest_rates(curve)
    assert found["steep"] in rates[49:51]
    assert found["valley"] == pytest.approx(np.sqrt(rates[40] * rates[59]), rel=0.3)
    assert found["minimum"] == pytest.approx(rates[59] / 10)


def test_a_loss_that_never_falls_gives_no_suggestion():
    nothing = {"steep": None, "valley": None, "minimum": None}
    assert suggest_rates(make_curve(np.linspace(1.0, 5.0, 50))) == nothing
    assert suggest_rates(make_curve(np.full(50, 1.0))) == nothing
    assert suggest_rates(make_curve([1.0, np.nan])) == nothing


def test_a_suggestion_is_never_beyond_the_divergence():
    curve = make_curve(np.concatenate([np.linspace(2, 1, 30), [3.0, 9.0, np.inf, np.nan]]))
    assert suggest_rates(curve)["steep"] <= curve["learning_rate"][29]


def test_a_run_trains_to_the_same_bits_with_and_without_the_test_before(tmp_path):
    ends, after = [], []
    for name in ("without", "with"):
        tf.random.set_global_generator(tf.random.Generator.from_seed(3))
        run = make_run(augment="default", dropout=0.3, batch_norm="train")
        if name == "with":
            for index in (0, 1):
                before = values(run.model)
                trainable = [layer.trainable for layer in run.model._flatten_layers()]
                curve = measure_rates(run, [HEAD, ALL], index, steps=20)
                assert curve["loss"].nunique() > 10
                assert not moved(before, run.model)
                assert [layer.trainable for layer in run.model._flatten_layers()] == trainable
        history = train_stages(run, [HEAD, ALL], tmp_path / name).history
        ends.append((values(run.model), history.drop(columns="learning_rate", errors="ignore")))
        after.append(draws())
    assert {
        path for path, value in ends[0][0].items() if not np.array_equal(value, ends[1][0][path])
    } == set()
    pd.testing.assert_frame_equal(ends[0][1], ends[1][1], check_exact=True)
    assert after[0] == after[1]


def test_seeds_of_layers_and_of_the_process_are_put_back():
    keras.utils.set_random_seed(5)
    keras.random.uniform([])
    run = make_run(dropout=0.3)
    states = {id(each): each.numpy().tolist() for each in run.model.variables if "seed" in each.path}
    assert states
    with random_state_unchanged():
        expected = draws()
    measure_rates(run, [ALL], steps=10)
    assert {id(e): e.numpy().tolist() for e in run.model.variables if "seed" in e.path} == states
    with random_state_unchanged():
        keras.utils.set_random_seed(7)
        draws()
    assert draws() == expected


def test_only_what_the_stage_trains_is_moved_by_the_steps(monkeypatch):
    run = make_run()
    seen = []

    before = values(run.model)

    class Watched(RisingRate):
        def on_train_end(self, logs=None):
            seen.append(moved(before, run.model))

    monkeypatch.setattr("tlkit.training.lr_range.RisingRate", Watched)
    measure_rates(run, [HEAD], steps=20)
    head = {weight.path for layer in run.model.layers[-1:] for weight in layer.weights}
    assert seen == [head]


@pytest.mark.parametrize(
    ("lowest", "highest", "steps", "said"),
    [
        (0.0, 1.0, 100, "0 < lowest < highest, received 0 and 1"),
        (1.0, 0.1, 100, "received 1 and 0.1"),
        (1e-7, float("nan"), 100, "received 1e-07 and nan"),
        (1e-7, 10.0, 3, "steps should be at least 10, received 3"),
    ],
)
def test_a_range_that_makes_no_test_is_refused(lowest, highest, steps, said):
    with pytest.raises(ConfigError, match=said):
        measure_rates(make_run(), [HEAD], lowest=lowest, highest=highest, steps=steps)


def test_a_loss_that_is_not_finite_from_the_start_is_one_line_and_changes_nothing():
    run = make_run(clip=None)
    run.model.layers[-1].bias.assign([np.nan, 0.0, 0.0])
    before = values(run.model)
    with pytest.raises(TrainingError, match="loss is nan at the first steps of stage 'head'"):
        measure_rates(run, [HEAD])
    assert all(
        np.array_equal(before[path], value, equal_nan=True) for path, value in values(run.model).items()
    )


def test_averages_of_weights_are_left_aside():
    run = replace(make_run(), training=TrainingConfig(ema=0.9))
    assert len(measure_rates(run, [HEAD], steps=10)) == 10
