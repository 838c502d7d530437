"""Updates made of several batches: the same as updates of one large batch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_optimizer import Watch

from tlkit.config import HeadConfig
from tlkit.errors import ConfigError
from tlkit.heads import make_head
from tlkit.model import build_model
from tlkit.plans import Stage
from tlkit.training import require_whole_update, train_stages
from tlkit.training.optimizing.accumulation import sum_over_parts
from tlkit.training.training_model import TrainingModel

from small_models import small_backbone
from test_training import make_run, values

# The gradients of these runs have norms of about 1, so this limit clips nearly every step; with momentum and
# large steps an update that is left out or made twice shows at once.
SGD = {"optimizer": "sgd", "momentum": 0.5, "weight_decay": 0.01, "clip": {"by": "global_norm", "limit": 0.1}}
STAGES = [Stage("top", 1, 2, 0.3)]


def train(folder, stages=STAGES, **options):
    """37 examples: with updates of 16, the last one of an epoch is of 5."""
    run = make_run(n=37, n_validation=5, **{**SGD, **options})
    watch = Watch()
    trained = train_stages(run, stages, folder, [watch])
    return run, watch, trained


def require_equal(accumulated, whole):
    (run, watch, trained), (whole_run, whole_watch, whole_trained) = accumulated, whole
    np.testing.assert_allclose(watch.losses, whole_watch.losses, rtol=1e-5)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(trained.history[name], whole_trained.history[name], rtol=1e-5)
    expected = values(whole_run.model)
    for path, value in values(run.model).items():
        np.testing.assert_allclose(value, expected[path], rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    "options",
    [
        {"clip": {"by": "norm", "limit": 0.05}, "ema": 0.7, "schedule": "one_cycle"},
        {"optimizer": "adamw", "momentum": None, "schedule": "plateau", "warmup": 0.5},
    ],
    ids=["sgd", "adamw"],
)
def test_batches_of_an_update_are_one_large_batch(options, tmp_path):
    stages = [replace(stage, learning_rate=1e-3) for stage in STAGES] if "optimizer" in options else STAGES
    accumulated = train(tmp_path / "a", stages, batch_size=4, accumulate=4, **options)
    whole = train(tmp_path / "b", stages, batch_size=16, **options)
    assert len(accumulated[1].losses) == 2 * 3
    require_equal(accumulated, whole)


def test_sizes_that_do_not_divide_are_one_large_batch_too(tmp_path):
    """Updates of 15 in parts of 5, and one of 7 in parts of 3, 3 and 1."""
    stages = [Stage("all", "all", 2, 0.3)]
    require_equal(
        train(tmp_path / "a", stages, batch_size=5, accumulate=3),
        train(tmp_path / "b", stages, batch_size=15),
    )


def test_weighted_examples_are_one_large_batch_too(tmp_path):
    weights = np.linspace(0.1, 3.0, 37, dtype="float32")
    found = []
    for name, options in (("a", {"batch_size": 4, "accumulate": 4}), ("b", {"batch_size": 16})):
        run = replace(make_run(n=37, n_validation=5, **SGD, **options), example_weights=weights)
        watch = Watch()
        found.append((run, watch, train_stages(run, STAGES, tmp_path / name, [watch])))
    require_equal(*found)


def test_only_one_part_is_in_memory_at_a_time():
    """The rows that the model sees at once are those of a part."""
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            tf.py_function(lambda rows: seen.append(int(rows)), [tf.shape(x)[0]], [])
            return x

    inputs = keras.Input((2,))
    model = TrainingModel.of(keras.Model(inputs, keras.layers.Dense(1)(Spy()(inputs))), None)
    model.accumulate = 3
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(np.ones((8, 2), "float32"), np.ones((8, 1), "float32"))
    assert seen[-3:] == [3, 3, 2]


def test_penalties_on_weights_count_once():
    head = make_head(HeadConfig(dropout=0.0, l2=0.1), n_outputs=3)
    x = np.random.default_rng(0).normal(size=(7, 16, 16, 3)).astype("float32")
    y = np.arange(7) % 3
    found = []
    for count in (1, 3):
        keras.utils.set_random_seed(0)
        model = TrainingModel.of(build_model(small_backbone(), head), None)
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        model.accumulate = count
        model.compile(keras.optimizers.SGD(0.5), head.loss, jit_compile=False)
        loss = model.train_on_batch(x, y)
        found.append((loss, model.get_weights()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for value, expected in zip(found[1][1], found[0][1], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rows", "sizes"), [(12, [4, 4, 4]), (10, [4, 4, 2]), (2, [2]), (4, [2, 2])])
def test_pairs_stay_together(rows, sizes):
    found = []

    def step(part, share):
        found.append(part.shape[0])
        return tf.constant(1.0), [share]

    loss, (total,) = sum_over_parts(tf.zeros((rows, 1)), 3, step, [tf.Variable(0.0)], unit=2)
    assert found == sizes
    assert (float(loss), float(total)) == (pytest.approx(1.0), pytest.approx(1.0))


def test_words_weigh_the_same_in_whichever_part_they_are():
    """Examples of 1 to 6 words: means over parts would not be the mean over words."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 6, 4)).astype("float32")
    tags = np.where(
        np.arange(6)[None] < np.array([6, 1, 5, 2, 1, 4])[:, None], rng.integers(0, 3, (6, 6)), -1
    )
    found = []
    for count in (1, 3):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((None, 4))
        model = TrainingModel.of(keras.Model(inputs, keras.layers.Dense(3)(inputs)), None)
        model.accumulate = count
        head = make_head(HeadConfig(), "tokens", n_outputs=3, classes=("O", "A", "B"))
        model.compile(keras.optimizers.SGD(1.0), head.loss, metrics=head.metrics(), jit_compile=False)
        logs = model.train_on_batch(x, tags.astype("int32"), return_dict=True)
        found.append([*logs.values(), *(value.ravel() for value in model.get_weights())])
    np.testing.assert_allclose(np.hstack(found[1]), np.hstack(found[0]), rtol=1e-5, atol=1e-6)


def test_a_weight_without_a_gradient_stays_without():
    loss, gradients = sum_over_parts(
        tf.ones((4, 1)), 2, lambda part, share: (tf.reduce_sum(part), [None, share]), [tf.Variable(1.0)] * 2
    )
    assert gradients[0] is None
    assert float(loss) == 2.0


def test_more_batches_than_an_epoch_has_are_refused():
    require_whole_update(make_run(n=37, batch_size=8, accumulate=5))
    with pytest.raises(ConfigError, match="of 6 batches, but an epoch of 37 examples has 5. Use at most 5"):
        require_whole_update(make_run(n=37, batch_size=8, accumulate=6))


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {tests!r})
from pathlib import Path
import keras, numpy as np
from test_accumulation import train
from test_training import values
from tlkit.config import HeadConfig
from tlkit.devices import make_strategy
from tlkit.heads import make_head
from tlkit.training.training_model import TrainingModel

report = {{"losses": [], "weights": [], "words": []}}
for name, options in (("cpu", dict(batch_size=16)), ("mirrored", dict(batch_size=4, accumulate=4))):
    strategy = make_strategy(name)
    run, watch, _ = train(Path({folder!r}) / name, strategy=strategy, ema=0.7, **options)
    report["losses"].append([float(loss) for loss in watch.losses + watch.validation])
    report["weights"].append([float(v) for value in values(run.model).values() for v in value.ravel()])
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input((None, 4))
        model = TrainingModel.of(keras.Model(inputs, keras.layers.Dense(3)(inputs)), None)
        model.accumulate = options.get("accumulate", 1)
        head = make_head(HeadConfig(), "tokens", n_outputs=3, classes=("O", "A", "B"))
        model.compile(keras.optimizers.SGD(1.0), head.loss, metrics=head.metrics(), jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6, 4)).astype("float32")
    lengths = np.array([6, 1, 5, 2, 1, 4, 3, 2])[:, None]
    tags = np.where(np.arange(6)[None] < lengths, rng.integers(0, 3, (8, 6)), -1).astype("int32")
    data = tf.data.Dataset.from_tensors((x, tags))
    history = model.fit(data, epochs=2, verbose=0).history
    report["words"].append(
        [*history["loss"], *history["word_f1"], *(float(v) for w in model.get_weights() for v in w.ravel())]
    )
print(json.dumps(report))
"""


def test_two_replicas_accumulate_what_one_device_learns_at_once(tmp_path):
    script = MIRRORED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, (one, two) in json.loads(done.stdout.splitlines()[-1]).items():
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6, err_msg=name)
