"""Losses and training metrics of tagged words and of pairs of vectors."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit.config import HeadConfig
from tlkit.errors import ConfigError
from tlkit.heads import class_weights, make_head

RNG = np.random.default_rng(0)
TAGS = np.array([[0, 2, 1, 1], [2, -1, -1, -1], [1, 0, -1, -1]], "int32")
LOGITS = RNG.normal(size=(3, 4, 3)).astype("float32")
NAMES = ("B-x", "I-x", "O")


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def tagger(classes=NAMES, **options):
    return make_head(HeadConfig(**options), "tokens", n_outputs=3, classes=classes)


def vectors(n, d=5, rng=RNG):
    rows = rng.normal(size=(2 * n, d)).astype("float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines_of(rows):
    return (rows[::2] * rows[1::2]).sum(axis=1)


def test_the_loss_of_tags_is_the_mean_over_real_words():
    real = TAGS >= 0
    expected = -log_softmax(LOGITS)[real][np.arange(7), TAGS[real]].mean()
    assert float(tagger().loss(TAGS, LOGITS)) == pytest.approx(expected, rel=1e-5)
    padded = np.pad(TAGS, ((0, 0), (0, 9)), constant_values=-1), np.pad(LOGITS, ((0, 0), (0, 9), (0, 0)))
    assert float(tagger().loss(*padded)) == pytest.approx(expected, rel=1e-5)


def test_smoothing_and_focus_of_tags_are_those_of_words_one_by_one():
    real = TAGS >= 0
    one_hot, logits = np.eye(3, dtype="float32")[TAGS[real]], LOGITS[real]
    smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)(one_hot, logits)
    np.testing.assert_allclose(tagger(label_smoothing=0.1).loss(TAGS, LOGITS), smoothed, rtol=1e-5)
    focal = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0, from_logits=True)(one_hot, logits)
    np.testing.assert_allclose(tagger(loss="focal").loss(TAGS, LOGITS), focal, rtol=1e-5)


def test_a_batch_without_any_word_costs_nothing():
    assert float(tagger().loss(np.full((2, 3), -1), LOGITS[:2, :3])) == 0.0


REPLICAS = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from tlkit.config import HeadConfig
from tlkit.devices import make_strategy
from tlkit.heads import make_head
from tlkit.training.training_model import TrainingModel

class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []
    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(logs["loss"]))
    def on_epoch_end(self, epoch, logs=None):
        self.seen += [float(logs[name]) for name in sorted(logs)]

rng = np.random.default_rng(0)
n, words, width = 15, 6, 4  # 15 in batches of 4: the last three split into 2 and 1
lengths = rng.integers(1, words + 1, n)
inside = np.arange(words) < lengths[:, None]
tags = np.where(inside, rng.integers(0, 3, (n, words)), -1).astype("int32")
starts = np.where(inside, np.arange(words), -1).astype("int32")
sequence = rng.normal(size=(n, words, width)).astype("float32")
pairs = rng.normal(size=(24, width)).astype("float32")
scores = np.repeat(rng.random(12), 2).astype("float32")

strategies = [make_strategy(name) for name in ("cpu", "mirrored")]

def fit(strategy, objective):
    keras.utils.set_random_seed(0)
    watch = Losses()
    with strategy.scope():
        loss = "cosine" if objective == "embed" else "auto"
        options = HeadConfig(dropout=0.0, loss=loss, hidden_units=(3,))
        head = make_head(options, objective, n_outputs=3, classes=("B", "I", "O"), targets=scores)
        features = {"sequence": keras.Input((None, width), name="sequence")}
        if objective == "tokens":
            features["word_starts"] = keras.Input((None,), dtype="int32", name="word_starts")
        model = TrainingModel(features, head.attach(features))
        model.compile(keras.optimizers.SGD(0.1), head.loss, metrics=head.metrics(), jit_compile=False)
    if objective == "tokens":
        inputs, targets, size = {"sequence": sequence, "word_starts": starts}, tags, 4
    else:
        inputs, targets, size = {"sequence": pairs[:, None]}, scores, 8
    data = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(size)
    model.fit(data, validation_data=data, epochs=3, shuffle=False, verbose=0, callbacks=[watch])
    return watch.seen

print(json.dumps({task: [fit(strategy, task) for strategy in strategies] for task in ("tokens", "embed")}))
"""


def test_two_replicas_train_tags_and_vectors_like_one_device_step_by_step():
    """Sentences of unlike length: the replicas have unlike numbers of words."""
    done = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for one, two in json.loads(done.stdout.splitlines()[-1]).values():
        assert len(one) > 10
        np.testing.assert_allclose(two, one, rtol=1e-5)


def test_word_accuracy_and_f1_count_real_words_over_all_batches():
    head = tagger()
    answers = np.eye(3, dtype="float32")[[[0, 2, 2, 1], [0, 0, 0, 0], [1, 2, 0, 0]]]
    accuracy, f1 = head.metrics()
    for batch in (slice(0, 1), slice(1, 3)):
        accuracy.update_state(TAGS[batch], answers[batch])
        f1.update_state(TAGS[batch], answers[batch])
    # Right: 0, 2, and the last 1 of the first sentence, and 1 of the third: 4 of 7 words.
    assert float(accuracy.result()) == pytest.approx(4 / 7)
    # Not O: 5 words are (0, 1, 1 | 1, 0), 4 are taken for one (0, 1 | 0 | 1), 3 of these rightly.
    assert float(f1.result()) == pytest.approx(2 * 3 / (5 + 4))
    assert (head.monitor, head.mode) == ("val_word_f1", "max")


def test_a_word_that_nothing_is_said_about_is_outside():
    accuracy, f1 = tagger().metrics()
    nothing = np.zeros((1, 2, 3), "float32")
    accuracy.update_state(np.array([[2, 0]]), nothing)
    f1.update_state(np.array([[2, 0]]), nothing)
    assert float(accuracy.result()) == 0.5
    assert float(f1.result()) == 0.0


def test_tags_without_an_outside_are_watched_by_their_accuracy():
    head = tagger(classes=("NOUN", "VERB", "X"))
    assert [metric.name for metric in head.metrics()] == ["accuracy"]
    assert (head.monitor, head.mode) == ("val_accuracy", "max")


def embedder(targets=None, **options):
    return make_head(HeadConfig(**options), "embed", targets=targets)


def test_cosent_counts_every_pair_of_pairs_in_the_wrong_order():
    rows, scores = vectors(4), np.array([0.1, 0.7, 0.7, 0.4])
    cosines = cosines_of(rows)
    total = 1.0
    for i in range(4):
        for j in range(4):
            if scores[i] > scores[j]:
                total += np.exp(20 * (cosines[j] - cosines[i]))
    head = embedder(scores)
    assert float(head.loss(np.repeat(scores, 2), rows)) == pytest.approx(np.log(total), rel=1e-5)
    assert (head.monitor, head.mode) == ("val_pearson", "max")


def test_cosent_of_equal_scores_costs_nothing():
    assert float(embedder().loss(np.ones(6), vectors(3))) == 0.0


def test_cosine_scales_the_scores_of_training_to_zero_and_one():
    rows = vectors(3)
    head = embedder(np.array([1.0, 3.0, 5.0]), loss="cosine")
    scores = np.array([1.0, 2.0, 5.0])
    expected = np.square(cosines_of(rows) - np.array([0.0, 0.25, 1.0])).mean()
    assert float(head.loss(np.repeat(scores, 2), rows)) == pytest.approx(expected, rel=1e-5)


def test_ranking_is_cross_entropy_over_the_partners_both_ways():
    rows, missing = vectors(4), np.full(4, np.nan)
    logits = 20 * rows[::2] @ rows[1::2].T
    expected = -(np.diag(log_softmax(logits)).mean() + np.diag(log_softmax(logits.T)).mean()) / 2
    for head in (embedder(missing), embedder(missing, loss="ranking"), embedder([None] * 4)):
        assert float(head.loss(np.repeat(missing, 2), rows)) == pytest.approx(expected, rel=1e-5)
        assert head.monitor == "val_loss"


@pytest.mark.parametrize("loss", ["cosent", "cosine", "ranking"])
def test_losses_of_vectors_have_a_value_for_every_row_and_finite_gradients(loss):
    rows = tf.constant(vectors(4))
    targets = np.full(8, np.nan) if loss == "ranking" else np.repeat(RNG.random(4), 2)
    head = embedder(targets, loss=loss)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        values = head.loss.call(tf.constant(targets, tf.float32), rows)
        mean = tf.reduce_mean(values)
    assert values.shape == (8,)
    gradient = tape.gradient(mean, rows).numpy()
    assert np.isfinite(gradient).all()
    assert gradient.any()


def test_losses_and_scores_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"scores from 0 to 5. Use cosent or cosine"):
        embedder(np.array([0.0, 5.0]), loss="ranking")
    with pytest.raises(ConfigError, match=r"'cosent' needs scores, but 2 of 2 pairs have none. Use ranking"):
        embedder(np.array([np.nan, np.nan]), loss="cosent")
    with pytest.raises(ConfigError, match=r"'cosine' needs scores, but 1 of 2 pairs have none. Use cosent"):
        embedder(np.array([np.nan, 1.0]), loss="cosine")
    with pytest.raises(
        ConfigError, match=r"does not fit task 'embed'. Allowed: auto, cosent, cosine, ranking"
    ):
        embedder(loss="mse")
    with pytest.raises(ConfigError, match="does not fit task 'tokens'"):
        tagger(loss="cosent")
    with pytest.raises(ConfigError, match="task 'embed' has none"):
        embedder(label_smoothing=0.1)


def test_the_correlation_of_pairs_is_pearsons_over_all_batches():
    rows, scores = vectors(50), RNG.random(50).astype("float32")
    scores[3] = np.nan
    (metric,) = embedder(scores).metrics()
    for start in (0, 20):
        stop = 20 if start == 0 else 50
        metric.update_state(np.repeat(scores[start:stop], 2), rows[2 * start : 2 * stop])
    real = ~np.isnan(scores)
    expected = np.corrcoef(cosines_of(rows)[real], scores[real])[0, 1]
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


def test_partners_are_found_among_those_of_the_batch():
    (metric,) = embedder(np.full(3, np.nan)).metrics()
    first = np.eye(3, dtype="float32")
    second = first[[0, 2, 1]]
    metric.update_state(np.zeros(6), np.stack([first, second], axis=1).reshape(6, 3))
    assert float(metric.result()) == pytest.approx(1 / 3)


def test_tags_have_weights():
    real = TAGS >= 0
    weights = np.array([2.0, 0.5, 3.0])
    each = -log_softmax(LOGITS)[real][np.arange(7), TAGS[real]]
    expected = (each * weights[TAGS[real]]).mean()
    loss = tagger(class_weight=dict(zip(NAMES, weights.tolist(), strict=True))).loss
    assert float(loss(TAGS, LOGITS)) == pytest.approx(expected, rel=1e-5)
    counts = np.bincount(TAGS[real], minlength=3)
    balanced = class_weights("balanced", "tokens", [row[row >= 0] for row in TAGS], NAMES)
    np.testing.assert_allclose(balanced, 7 / (3 * np.maximum(counts, 1)), rtol=1e-6)
