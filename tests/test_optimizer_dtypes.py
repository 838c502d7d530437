"""Weights in other dtypes than float32, as SavedModels have them, train like those in float32."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tlkit.config import TrainingConfig
from tlkit.plans import Stage
from tlkit.training.optimizing.optimizer import OPTIMIZERS, make_optimizer
from tlkit.training.optimizing.state import take_state

START = np.random.default_rng(0).normal(0, 0.5, (4, 6)).astype("float32")
GRADIENT = np.random.default_rng(1).normal(0, 0.3, (4, 6)).astype("float32")


def trained(dtype: str, steps: int = 5, rate: float = 1e-2, size: float = 1.0, **settings: Any) -> Any:
    """A weight of this dtype beside one in float32, after some steps; and the optimizer."""
    weight = keras.Variable(START, dtype=dtype, name="kernel")
    head = keras.Variable(np.ones((6, 2)), dtype="float32", name="head")
    training = TrainingConfig(schedule="constant", warmup=0, **settings)
    optimizer = make_optimizer(training, Stage("all", "all", 1, rate), steps, [weight, head])
    for _ in range(steps):
        gradient = keras.ops.cast(GRADIENT * size, dtype)
        optimizer.apply([gradient, keras.ops.ones((6, 2))], [weight, head])
    optimizer.finalize_variable_values([weight, head])
    return weight.numpy(), optimizer


SETTINGS = [
    *({"optimizer": each, "weight_decay": 0.1} for each in OPTIMIZERS if each != "adam"),
    {"optimizer": "adam"},
    {"ema": 0.5},
    *({"clip": {"by": by, "limit": 0.5}} for by in ("global_norm", "norm", "value")),
]


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_optimizer_steps_as_it_does_in_float32(settings, dtype):
    expected, _ = trained("float32", **settings)
    received, _ = trained(dtype, **settings)
    assert received.dtype == dtype
    assert np.abs(expected - START).max() > 1e-3
    # Halves near 1 are 2^-10 apart; a gradient that was rounded moves a matrix step of Muon most.
    np.testing.assert_allclose(received, expected, atol=4e-3 if dtype == "float16" else 1e-4)


def test_steps_that_a_half_cannot_tell_add_up():
    received, _ = trained("float16", steps=40, rate=1e-5)
    expected, _ = trained("float32", steps=40, rate=1e-5)
    moved = np.abs(START) > 0.25  # where halves are 2^-12 or more apart: 24 steps
    assert np.abs(received - START.astype("float16"))[moved].max() > 1e-4
    np.testing.assert_allclose(received, expected, atol=2.0**-10)


def test_squares_of_small_gradients_do_not_become_zero():
    received, _ = trained("float16", size=1e-4)
    expected, _ = trained("float32", size=1e-4)
    np.testing.assert_allclose(received, expected, atol=4e-3)


def test_a_weight_that_was_set_in_between_goes_on_from_there():
    weight = keras.Variable(START, dtype="float16", name="kernel")
    training = TrainingConfig(optimizer="sgd", schedule="constant")
    optimizer = make_optimizer(training, Stage("all", "all", 1, 1e-2), 2, [weight])
    optimizer.apply([keras.ops.cast(GRADIENT, "float16")], [weight])
    weight.assign(np.full((4, 6), 3.0))
    optimizer.apply([keras.ops.cast(GRADIENT, "float16")], [weight])
    np.testing.assert_allclose(weight.numpy(), 3.0, atol=0.02)


def test_its_moments_are_carried_over_and_its_twin_is_not():
    _, optimizer = trained("float16")
    slots = next(iter(take_state(optimizer).slots.values()))
    assert {name: value.dtype for name, value in slots.items()} == {
        "momentum": "float32",
        "velocity": "float32",
    }
