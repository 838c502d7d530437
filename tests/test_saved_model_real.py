"""SavedModels of real backbones, and a real SavedModel, as they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit.backbones import load
from tlkit.backbones.saved_model import describe_saved_model, load_saved_model
from tlkit.freezing import group_layers
from tlkit.plans import Stage
from tlkit.training.freeze import apply_freeze, frozen_weights, hash_weights
from tlkit.zoo.source import HubSource

from saved_models import fit, pictures, save_reusable, save_signature, with_head

pytestmark = pytest.mark.real

RATE = 22_050  # samples a second
SIZE = 64
KINDS = {"reusable": save_reusable, "signature": save_signature}


def note(midi: int, samples: int) -> np.ndarray:
    """A note with the first harmonics, as of a plucked string."""
    seconds = np.arange(samples) / RATE
    pitch = 440 * 2 ** ((midi - 69) / 12)
    tone = sum(np.sin(2 * np.pi * pitch * k * seconds) / k**2 for k in range(1, 7))
    return (0.5 * tone * np.exp(-1.5 * seconds)).astype("float32")


def check_tuning(model: keras.Model, groups: Any, x: Any, rate: float = 1e-4, epochs: int = 4) -> None:
    """Frozen, the backbone stays bit-identical; unfrozen, all of it moves and the loss falls."""
    labels = np.arange(len(next(iter(x.values())) if isinstance(x, dict) else x)) % 2
    head, everything = Stage("head", "head", 1, 1e-2), Stage("all", "all", 1, rate)
    apply_freeze(model, groups, head)
    frozen = frozen_weights(groups, head)
    before = hash_weights(frozen)
    fit(model, x, labels, epochs=1)
    assert hash_weights(frozen) == before
    apply_freeze(model, groups, everything)
    norms = {weight.path for weight in frozen_weights(groups, everything)}
    losses = fit(model, x, labels, rate=rate, epochs=epochs)
    assert losses[-1] < losses[0]
    after = hash_weights(frozen)
    moved = {path for path in before if after[path] != before[path]}
    trained = {weight.path for weight in frozen if weight.trainable}
    assert len(moved & trained) > 0.9 * len(trained) > 0  # not a pooler that the head does not read
    assert not moved & norms


@pytest.fixture(scope="module")
def basic_pitch() -> Any:
    return load("basic_pitch")


def test_basic_pitch_hears_the_notes_that_are_played(basic_pitch):
    name, shape = next(iter(basic_pitch.entry.input.shapes.items()))
    played = (57, 60, 69)
    sound = np.stack([note(midi, shape[1]) for midi in played])[..., None]
    notes = np.asarray(basic_pitch.model({name: sound}, training=False)["note"])
    assert notes.shape[2] == 88  # the keys of a piano, from MIDI 21 on
    assert tuple(notes[:, 20:60].mean(axis=1).argmax(axis=1) + 21) == played


def test_basic_pitch_can_be_tuned(basic_pitch):
    name, shape = next(iter(basic_pitch.entry.input.shapes.items()))
    model = basic_pitch.model
    assert basic_pitch.entry.params == model.count_params()
    assert len(model.trainable_weights) == 18
    sound = tf.constant(note(57, shape[1])[None, :, None])
    with tf.GradientTape() as tape:
        answers = model({name: sound}, training=True)
        loss = tf.add_n([tf.reduce_mean(tf.square(each)) for each in answers.values()])
    gradients = tape.gradient(loss, [each.value for each in model.trainable_weights])
    assert all(each is not None and np.isfinite(each).all() for each in gradients)
    assert [group.name for group in group_layers(basic_pitch)] == ["saved_model"]


def test_basic_pitch_is_frozen_and_tuned():
    backbone = load("basic_pitch")
    name, shape = next(iter(backbone.entry.input.shapes.items()))
    sound = np.stack([note(midi, shape[1]) for midi in (57, 69)])[..., None]
    times = [keras.layers.GlobalAveragePooling1D()(each) for each in backbone.model.output.values()]
    classes = keras.layers.Dense(2)(keras.layers.Concatenate()(times))
    model = keras.Model(backbone.model.input, classes)
    check_tuning(model, group_layers(backbone), {name: sound}, rate=1e-3)


@pytest.fixture(scope="module")
def efficientnet() -> keras.Model:
    return load("efficientnet_lite0", image_size=SIZE).model


@pytest.mark.parametrize("kind", ["reusable", pytest.param("signature", marks=pytest.mark.slow)])
def test_efficientnet_lite0_is_the_same_as_a_saved_model(kind, efficientnet, tmp_path):
    path = KINDS[kind](efficientnet, tmp_path / kind)
    backbone = load_saved_model(describe_saved_model(HubSource(kind="hub", handle=str(path)), "lite0"))
    x = pictures(4, SIZE)
    expected = efficientnet(x, training=False)
    np.testing.assert_allclose(backbone.model(x, training=False), expected, atol=1e-5)
    model = backbone.model
    assert model.count_params() == efficientnet.count_params()
    assert len(model.trainable_weights) == len(efficientnet.trainable_weights)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True)))
    gradients = tape.gradient(loss, [each.value for each in model.trainable_weights])
    assert all(each is not None for each in gradients)
    tuned, groups, _ = with_head(backbone)
    check_tuning(tuned, groups, pictures(8, SIZE), epochs=8)


@pytest.mark.parametrize("kind", KINDS)
def test_minilm_is_the_same_as_a_saved_model(kind, tmp_path: Path):
    whole = load("minilm_l6").model
    path = KINDS[kind](whole, tmp_path / kind)
    backbone = load_saved_model(describe_saved_model(HubSource(kind="hub", handle=str(path)), "minilm"))
    draw = np.random.default_rng(0)
    tokens = {
        name: tf.constant(draw.integers(0, 2 if name != "token_ids" else 1000, (3, 12)), tf.int32)
        for name in whole.input
    }
    tokens["padding_mask"] = tf.ones((3, 12), tf.int32)
    expected = whole(tokens, training=False)
    given = backbone.model(tokens, training=False)
    np.testing.assert_allclose(given["sequence"], expected["sequence"], atol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(backbone.model(tokens, training=True)["sequence"]))
    trainable = backbone.model.trainable_weights
    assert len(trainable) == len(whole.trainable_weights)
    assert all(each is not None for each in tape.gradient(loss, [each.value for each in trainable]))
    tuned, groups, _ = with_head(backbone)
    check_tuning(tuned, groups, tokens)
