"""Heads: layers, losses, metrics, scores."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit.config import HeadConfig
from tlkit.errors import ConfigError
from tlkit.heads import class_weights, example_weights, make_head, to_scores
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


def test_label_smoothing_is_refused_where_there_are_no_labels():
    with pytest.raises(ConfigError, match="a regression has none"):
        build("regress", 1, label_smoothing=0.1)


def test_scores_are_probabilities():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    np.testing.assert_allclose(np.sum(to_scores("classify", logits), axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(to_scores("multilabel", logits), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    np.testing.assert_array_equal(to_scores("regress", logits), logits)


def test_a_head_of_ones_own_replaces_the_layers():
    layer = keras.Sequential([keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)])
    model = build_model(small_backbone(), make_head(n_outputs=3, layer=layer))
    assert model.layers[-1].name == layer.name
    assert [type(part) for part in model.layers[-1].layers] == [type(part) for part in layer.layers]


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


class Own(keras.layers.Layer):
    """A head as a user writes it."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(units)
        self.units = units

    def build(self, shape):
        self.dense.build((None, shape[-1]))

    def call(self, features):
        return self.dense(keras.ops.mean(features, axis=(1, 2)))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def _sequential(*first):
    return keras.Sequential([*first, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])


@pytest.mark.parametrize("own", [Own(3), _sequential(), _sequential(keras.Input((2, 2, 8)))])
def test_a_head_of_ones_own_is_copied_so_that_no_run_touches_it(own):
    before = [value.copy() for value in own.get_weights()]
    models = [build_model(small_backbone(), make_head(n_outputs=3, layer=own)) for _ in range(2)]
    heads = [model.layers[-1] for model in models]
    assert len({id(layer) for layer in (own, *heads)}) == 3
    heads[0].set_weights([value + 1 for value in heads[0].get_weights()])
    assert len(own.get_weights()) == len(before)
    for value, own_value in zip(before, own.get_weights(), strict=True):
        np.testing.assert_array_equal(value, own_value)
    for value, second in zip(before, heads[1].get_weights(), strict=False):
        np.testing.assert_array_equal(value, second)


def test_a_head_or_a_metric_that_cannot_be_made_again_is_refused_at_once():
    class Silent(keras.layers.Layer):
        def __init__(self, units):
            super().__init__()

    class Mean(keras.metrics.Mean):
        def __init__(self, power, **options):
            super().__init__(**options)

    with pytest.raises(ConfigError, match="Silent cannot be made again"):
        build_model(small_backbone(), make_head(n_outputs=3, layer=Silent(3)))
    with pytest.raises(ConfigError, match="Lambda layer cannot be loaded again"):
        build_model(
            small_backbone(), make_head(n_outputs=3, layer=_sequential(keras.layers.Lambda(lambda x: x)))
        )
    with pytest.raises(ConfigError, match="Mean cannot be made again"):
        make_head(n_outputs=3, metrics=[Mean(2)])
    with pytest.raises(ConfigError, match="received 'mlp'"):
        make_head(n_outputs=3, layer="mlp")


def test_one_metric_needs_no_list():
    head = make_head(n_outputs=3, metrics=keras.metrics.SparseCategoricalAccuracy(name="share"))
    first, second = head.metrics(), head.metrics()
    assert [metric.name for metric in first] == ["share"]
    assert first[0] is not second[0]


LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], "float32")
CERTAIN = np.array([[30.0, -30.0, 2.0], [-30.0, 1.0, 30.0], [0.5, -0.5, 0.0], [3.0, -3.0, 0.1]], "float32")


def focal_by_hand(labels, logits, gamma, alpha=None, weights=(1.0, 1.0, 1.0)):
    logits = logits.astype("float64")
    log_p, log_rest = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    p, rest = np.exp(log_p), np.exp(log_rest)
    there, absent = (1, 1) if alpha is None else (alpha, 1 - alpha)
    present = np.array(weights) * there * labels * rest**gamma * log_p
    return -(present + absent * (1 - labels) * p**gamma * log_rest).mean(axis=-1).mean()


def test_focal_losses_are_kerass_where_those_are_exact():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    _, multilabel = build("multilabel", loss="focal", focal_alpha=0.25, focal_gamma=1.5)
    expected = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, alpha=0.25, gamma=1.5, from_logits=True
    )(LABELS, logits)
    np.testing.assert_allclose(multilabel.loss(LABELS, logits), expected, rtol=1e-5)
    _, classify = build(loss="focal", focal_gamma=1.5, label_smoothing=0.1)
    targets = np.array([0, 2, 1, 1])
    expected = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=1.5, from_logits=True, label_smoothing=0.1
    )(np.eye(3)[targets], logits)
    np.testing.assert_allclose(classify.loss(targets, logits), expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_an_example_that_is_certainly_wrong_keeps_its_gradient_under_the_focal_loss(gamma):
    _, multilabel = build("multilabel", loss="focal", focal_gamma=gamma)
    np.testing.assert_allclose(
        multilabel.loss(LABELS, CERTAIN), focal_by_hand(LABELS, CERTAIN, gamma), rtol=1e-5
    )
    _, classify = build(loss="focal", focal_gamma=gamma)
    for loss, targets in ((multilabel.loss, np.array([[0.0, 1.0, 0.0]])), (classify.loss, np.array([1]))):
        logits = tf.constant([[40.0, -40.0, 0.0]])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(targets, logits)
        gradient = tape.gradient(value, logits).numpy()
        assert np.isfinite(gradient).all()
        assert gradient[0, 1] < -0.1  # towards the label that is there


def test_the_weight_of_a_label_counts_where_it_is_there():
    weights = {"a": 3.0, "b": 0.5, "c": 1.0}
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    for loss, gamma in (("auto", 0.0), ("focal", 2.0)):
        options = HeadConfig(class_weight=weights, loss=loss)
        head = make_head(options, "multilabel", n_outputs=3, classes=("a", "b", "c"))
        expected = focal_by_hand(LABELS, logits, gamma, weights=list(weights.values()))
        np.testing.assert_allclose(head.loss(LABELS, logits), expected, rtol=1e-5)


def test_balanced_labels_weigh_as_much_where_they_are_there_as_where_they_are_not():
    weights = class_weights("balanced", "multilabel", LABELS, ("a", "b", "c"))
    np.testing.assert_allclose(weights, [1 / 3, 3 / 1, 4 / 1], rtol=1e-6)
    options = HeadConfig(class_weight="balanced")
    head = make_head(options, "multilabel", n_outputs=3, classes=("a", "b", "c"), targets=LABELS)
    logits = np.zeros((4, 3), "float32")
    expected = focal_by_hand(LABELS, logits, 0.0, weights=weights)
    np.testing.assert_allclose(head.loss(LABELS, logits), expected, rtol=1e-5)


def test_weights_of_classes_and_of_examples_multiply():
    options = HeadConfig(class_weight={"a": 3.0, "b": 0.5, "c": 1.0})
    head = make_head(options, "multilabel", n_outputs=3, classes=("a", "b", "c"))
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    each = [float(head.loss(LABELS[row : row + 1], logits[row : row + 1])) for row in range(4)]
    of_examples = np.array([2.0, 0.0, 1.0, 0.5], "float32")
    np.testing.assert_allclose(head.loss(LABELS, logits, of_examples), np.mean(each * of_examples), rtol=1e-5)


def test_weights_of_labels_beside_a_loss_of_ones_own_are_refused():
    with pytest.raises(ConfigError, match="a part of the loss of task 'multilabel'"):
        make_head(
            HeadConfig(class_weight="balanced"),
            "multilabel",
            n_outputs=3,
            loss=keras.losses.MeanSquaredError(),
        )


def test_alpha_is_for_the_focal_loss_of_labels():
    for task, loss in (("classify", "focal"), ("multilabel", "auto"), ("regress", "auto")):
        with pytest.raises(ConfigError, match="for task 'multilabel' with loss: focal"):
            build(task, loss=loss, focal_alpha=0.25)
