"""Heads: layers, losses, metrics, scores."""

import keras
import numpy as np
import pytest

from tlkit.config import HeadConfig
from tlkit.errors import ConfigError
from tlkit.heads import example_weights, make_head, to_scores
from tlkit.model import build_model

from small_models import small_backbone


def build(task="classify", n_outputs=3, targets=None, **options):
    head = make_head(HeadConfig(**options), task, n_outputs=n_outputs, targets=targets)
    return build_model(small_backbone(), head), head


@pytest.mark.parametrize("pooling", ["avg", "max", "avg_max"])
def test_every_pooling_gives_one_row_of_logits_per_picture(pooling):
    model, _ = build(pooling=pooling)
    assert model(np.zeros((2, 16, 16, 3), "float32")).shape == (2, 3)


def test_hidden_layers_follow_the_options():
    model, _ = build(hidden_units=(7, 5), activation="tanh", initializer="he_normal", l2=0.1, dropout=0.5)
    hidden = [layer for layer in model.layers if layer.name.startswith("head_hidden")]
    assert [layer.units for layer in hidden] == [7, 5]
    assert all(layer.activation.__name__ == "tanh" for layer in hidden)
    assert all(isinstance(layer.kernel_initializer, keras.initializers.HeNormal) for layer in hidden)
    assert len(model.losses) == 3
    assert len([layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]) == 3


def test_cross_entropy_is_that_of_keras():
    _, head = build(label_smoothing=0.1)
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    targets = np.array([0, 2, 1, 1])
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)(
        np.eye(3)[targets], logits
    )
    np.testing.assert_allclose(head.loss(targets, logits), expected, rtol=1e-6)


def test_focal_loss_without_focus_is_cross_entropy():
    _, plain = build()
    _, focal = build(loss="focal", focal_gamma=0.0)
    _, focused = build(loss="focal", focal_gamma=2.0)
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    targets = np.array([0, 2, 1, 1])
    np.testing.assert_allclose(focal.loss(targets, logits), plain.loss(targets, logits), rtol=1e-5)
    assert focused.loss(targets, logits) < plain.loss(targets, logits)


@pytest.mark.parametrize("loss", ["auto", "mse", "mae", "huber"])
def test_a_regression_answers_in_the_unit_of_its_target(loss):
    targets = np.array([900.0, 1000.0, 1100.0], "float32")
    model, head = build("regress", 1, targets=targets, loss=loss)
    answers = np.asarray(model(np.zeros((3, 16, 16, 3), "float32")))
    assert abs(answers - 1000).max() < 200
    assert float(head.loss(targets, np.full((3, 1), 1000.0, "float32"))) < 2


def test_standardised_regression_loss_counts_in_standard_deviations():
    targets = np.array([-50.0, 50.0], "float32")
    _, head = build("regress", 1, targets=targets)
    assert float(head.loss(targets, np.zeros((2, 1), "float32"))) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("task", "loss"), [("classify", "mse"), ("multilabel", "huber"), ("regress", "focal")]
)
def test_a_loss_that_does_not_fit_the_task_is_refused(task, loss):
    with pytest.raises(ConfigError, match="does not fit task"):
        build(task, loss=loss)


def test_scores_are_probabilities():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    np.testing.assert_allclose(np.sum(to_scores("classify", logits), axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(to_scores("multilabel", logits), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    np.testing.assert_array_equal(to_scores("regress", logits), logits)


def test_a_head_of_ones_own_replaces_the_layers():
    layer = keras.Sequential([keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)])
    model = build_model(small_backbone(), make_head(n_outputs=3, layer=layer))
    assert layer in model.layers


def test_a_head_of_ones_own_with_the_wrong_width_is_refused():
    with pytest.raises(ConfigError, match=r"needs \(None, 3\)"):
        build_model(small_backbone(), make_head(n_outputs=3, layer=keras.layers.GlobalMaxPooling2D()))


def test_balanced_weights_give_every_class_the_same_total():
    targets = np.array([0, 0, 0, 1])
    weights = example_weights("balanced", "classify", targets, ("a", "b"))
    assert weights[:3].sum() == pytest.approx(weights[3:].sum())
    assert weights.mean() == pytest.approx(1.0)


def test_a_table_of_weights_must_name_every_class():
    with pytest.raises(ConfigError, match="a weight for each of a, b"):
        example_weights({"a": 1.0}, "classify", np.array([0, 1]), ("a", "b"))
