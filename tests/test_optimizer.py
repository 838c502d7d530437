"""The optimizer of a stage: rates per layer group, clipping, averages, and what a stage hands to the next."""

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

from tlkit.config import TrainingConfig
from tlkit.config.training import ClipConfig
from tlkit.errors import ConfigError
from tlkit.freezing import LayerGroup
from tlkit.plans import Stage
from tlkit.training import train_stages
from tlkit.training.best import checkpoint
from tlkit.training.optimizing.optimizer import OPTIMIZERS, make_optimizer
from tlkit.training.optimizing.state import take_state

from test_training import make_run

RATE, DECAY = 0.125, 0.5
PLAIN = {
    "adam": lambda **options: keras.optimizers.Adam(**{**options, "weight_decay": None}),
    "adamw": keras.optimizers.AdamW,
    "sgd": lambda **options: keras.optimizers.SGD(momentum=0.9, nesterov=True, **options),
    "lion": keras.optimizers.Lion,
    "adafactor": lambda **options: keras.optimizers.Adafactor(relative_step=False, **options),
    "muon": lambda **options: keras.optimizers.Muon(
        adam_weight_decay=options["weight_decay"], exclude_layers=["head", "embed"], **options
    ),
}


def make_model(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(6, activation="tanh", name=name) for name in ("stem", "block")]
    inputs = x = keras.Input((4,))
    for layer in (*layers, keras.layers.Dense(2, name="head_output")):
        x = layer(x)
    model = keras.Model(inputs, x)
    groups = tuple(LayerGroup(layer.name, (layer,), None) for layer in layers)
    return model, groups


def stage_of(rate=RATE, **options):
    return Stage("all", "all", 1, rate, **options)


def optimizer_of(model, groups=(), stage=None, state=None, **training):
    settings = TrainingConfig(**{"clip": None, "warmup": 0.0, "schedule": "constant", **training})
    return make_optimizer(settings, stage or stage_of(), 10, model.trainable_variables, groups, state)


def gradients_for(variables, steps=5, seed=0):
    rng = np.random.default_rng(seed)
    return [
        [tf.constant(rng.normal(size=each.shape).astype("float32")) for each in variables]
        for _ in range(steps)
    ]


def train(optimizer, variables, steps):
    for gradients in steps:
        optimizer.apply(gradients, variables)


def test_every_optimizer_of_the_config_is_there():
    assert set(OPTIMIZERS) == set(PLAIN)
    for name in OPTIMIZERS:
        TrainingConfig(optimizer=name)


@pytest.mark.parametrize("name", PLAIN)
def test_every_group_is_trained_exactly_as_by_kerass_optimizer_at_the_groups_rate(name):
    model, groups = make_model()
    optimizer = optimizer_of(
        model,
        groups,
        stage_of(layer_decay=DECAY),
        optimizer=name,
        weight_decay=0.004 if name == "adam" else 0.1,
    )
    variables = model.trainable_variables
    steps = gradients_for(variables)
    train(optimizer, variables, steps)
    for rate, part in ((RATE * DECAY**2, "stem"), (RATE * DECAY, "block"), (RATE, "head_output")):
        other, _ = make_model()
        plain = PLAIN[name](learning_rate=rate, weight_decay=0.1)
        plain.exclude_from_weight_decay(var_names=["bias"])
        plain.build(other.trainable_variables)
        train(plain, other.trainable_variables, steps)
        for ours, theirs in zip(variables, other.trainable_variables, strict=True):
            if part in ours.path:
                np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-7, err_msg=ours.path)


def test_named_rates_are_those_of_their_groups():
    model, groups = make_model()
    rates = {"block": 0.5, "head": 0.25}
    optimizer = optimizer_of(
        model, groups, stage_of(learning_rates=rates), optimizer="sgd", momentum=0.0, weight_decay=0.0
    )
    before = [each.numpy() for each in model.trainable_variables]
    optimizer.apply([tf.ones_like(each) for each in before], model.trainable_variables)
    for old, new in zip(before, model.trainable_variables, strict=True):
        rate = 0.5 if "block" in new.path else 0.25 if "head" in new.path else RATE
        np.testing.assert_allclose(old - new.numpy(), np.full(new.shape, rate), rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_saves_and_goes_on_after_loading(name, tmp_path):
    model, groups = make_model()
    state = take_state(optimizer_of(model, groups))
    stage = stage_of(rate=0.01, layer_decay=DECAY)
    optimizer = optimizer_of(model, groups, stage, state, optimizer=name, schedule="one_cycle", ema=0.9)
    model.compile(optimizer, "mse", jit_compile=False)
    x, y = np.ones((4, 4), "float32"), np.ones((4, 2), "float32")
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is type(optimizer)
    for each in (model, again):
        each.train_on_batch(x, y)
        each.train_on_batch(x, y)
    for one, other in zip(model.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(optimizer.averages, again.optimizer.averages, strict=True):
        np.testing.assert_array_equal(one, other)


def test_muon_takes_the_matrices_inside_the_backbone_and_leaves_the_rest_to_adamw():
    inputs = keras.Input((3,))
    x = keras.layers.Embedding(5, 4, name="words")(inputs)
    x = keras.layers.Embedding(5, 4, name="token_embedding")(inputs) + x
    x = keras.layers.Conv1D(4, 2, name="conv")(x)
    x = keras.layers.Dense(4, name="inner")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(2, name="output")(x))
    body = [layer for layer in model.layers if layer.name in ("words", "token_embedding", "conv", "inner")]
    optimizer = optimizer_of(model, (LayerGroup("body", tuple(body), None),), optimizer="muon")
    by_muon = {path for path, name, _ in optimizer.slots if name == "momentum"} - {
        path for path, name, _ in optimizer.slots if name == "velocity"
    }
    assert by_muon == {"inner/kernel"}


def test_muon_of_a_keras_that_is_too_old_is_refused(monkeypatch):
    class OldMuon:
        def __init__(self, learning_rate=0.001):
            pass

    monkeypatch.setattr(keras.optimizers, "Muon", OldMuon)
    with pytest.raises(ConfigError, match="muon needs a newer Keras"):
        optimizer_of(make_model()[0], optimizer="muon")


CLIPPED = {
    "value": lambda gradients: [np.clip(each, -0.5, 0.5) for each in gradients],
    "norm": lambda gradients: [each * min(1.0, 0.5 / np.linalg.norm(each)) for each in gradients],
    "global_norm": lambda gradients: [
        each * 0.5 / np.sqrt(sum((one**2).sum() for one in gradients)) for each in gradients
    ],
}


@pytest.mark.parametrize("by", CLIPPED)
def test_gradients_are_clipped_by(by):
    model, _ = make_model()
    clip = ClipConfig(by=by, limit=0.5)
    optimizer = optimizer_of(model, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip=clip)
    (gradients,) = gradients_for(model.trainable_variables, 1)
    before = [each.numpy() for each in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    expected = CLIPPED[by]([each.numpy() for each in gradients])
    for old, new, gradient in zip(before, model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(old - new.numpy(), RATE * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion"])
@pytest.mark.parametrize("by", CLIPPED)
def test_a_word_that_occurs_twice_has_one_gradient(name, by):
    """TensorFlow gives the gradient of an embedding as rows, one for each time that a word occurs."""
    results = []
    for dense in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Embedding(5, 4)])
        optimizer = optimizer_of(model, optimizer=name, clip=ClipConfig(by=by, limit=0.5))
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(np.array([[1, 1, 2]])) ** 3)
            (gradient,) = tape.gradient(loss, model.trainable_variables)
            assert isinstance(gradient, tf.IndexedSlices)
            gradient = tf.convert_to_tensor(gradient) if dense else gradient
            optimizer.apply([gradient], model.trainable_variables)
        results.append(model.trainable_variables[0].numpy())
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_stages_at_one_rate_are_one_stage_that_is_twice_as_long(name):
    one, groups = make_model()
    steps = gradients_for(one.trainable_variables, 8)
    stage = stage_of(layer_decay=DECAY)
    train(optimizer_of(one, groups, stage, optimizer=name), one.trainable_variables, steps)

    two, groups = make_model()
    first = optimizer_of(two, groups, stage, optimizer=name)
    train(first, two.trainable_variables, steps[:4])
    second = optimizer_of(two, groups, stage, take_state(first), optimizer=name)
    train(second, two.trainable_variables, steps[4:])
    for ours, theirs in zip(two.trainable_variables, one.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_two_stages_of_fit_are_one_that_is_twice_as_long():
    x, y = np.random.default_rng(0).normal(size=(2, 12, 4)).astype("float32")
    trained = []
    for parts in ([4], [2, 2]):
        model, groups = make_model()
        state = None
        for epochs in parts:
            model.compile(optimizer := optimizer_of(model, groups, state=state), "mse", jit_compile=False)
            model.fit(x, y[:, :2], batch_size=4, epochs=epochs, shuffle=False, verbose=0)
            state = take_state(optimizer, state)
        trained.append(model.get_weights())
        assert set(state.steps.values()) == {12}
    for ours, theirs in zip(*trained, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_weight_that_is_new_in_a_stage_steps_as_at_the_beginning_of_a_run(name):
    """Adam's moments are corrected for their age; with that of older weights its first step is 3 times 1."""
    moved = []
    for steps_before in (0, 20):
        model, groups = make_model()
        model.get_layer("stem").trainable = False
        state = None
        if steps_before:
            first = optimizer_of(model, groups, optimizer=name)
            train(first, model.trainable_variables, gradients_for(model.trainable_variables, steps_before))
            state = take_state(first)
        model.get_layer("stem").trainable = True
        before = model.get_layer("stem").kernel.numpy()
        second = optimizer_of(model, groups, state=state, optimizer=name)
        train(second, model.trainable_variables, gradients_for(model.trainable_variables, 1, seed=1))
        moved.append(model.get_layer("stem").kernel.numpy() - before)
    np.testing.assert_allclose(*moved, rtol=1e-5, atol=1e-8)


def test_the_state_of_what_a_stage_froze_is_kept():
    model, groups = make_model()
    first = optimizer_of(model, groups)
    train(first, model.trainable_variables, gradients_for(model.trainable_variables, 3))
    model.get_layer("stem").trainable = False
    second = optimizer_of(model, groups, state=take_state(first))
    train(second, model.trainable_variables, gradients_for(model.trainable_variables, 2))
    state = take_state(second, take_state(first))
    assert state.steps["stem/kernel"] == 3
    assert state.steps["head_output/kernel"] == 5
    assert set(state.slots["stem/kernel"]) == {"momentum", "velocity"}


class Watch(keras.callbacks.Callback):
    """What a stage starts with, every step's loss, and the weights that it trains."""

    def __init__(self):
        super().__init__()
        self.steps_before, self.losses, self.weights, self.validation = [], [], [], []

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        counts = optimizer.steps_before.numpy()
        self.steps_before.append(dict(zip([each.path for each in optimizer.trained], counts, strict=True)))

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])
        self.weights.append([each.numpy() for each in self.model.optimizer.trained])

    def on_epoch_end(self, epoch, logs=None):
        self.validation.append(logs.get("val_loss"))


def test_a_run_hands_the_state_from_stage_to_stage(tmp_path):
    run, watch = make_run(), Watch()
    stages = [Stage("head", "head", 2, 0.01), Stage("top", 1, 1, 0.01), Stage("all", "all", 1, 0.01)]
    train_stages(run, stages, tmp_path, [watch])
    found = [
        {count for path, count in steps.items() if part in path}
        for steps, part in zip(
            [*watch.steps_before, watch.steps_before[2], watch.steps_before[2]],
            ["", "head", "head", "block2", "stem"],
            strict=True,
        )
    ]
    assert found == [{0}, {10}, {15}, {5}, {0}]


def average_of(weights, momentum):
    averages = weights[0]
    for now in weights[1:]:
        averages = [momentum * old + (1 - momentum) * new for old, new in zip(averages, now, strict=True)]
    return averages


def load_checkpoint(run, folder, stage):
    run.model.load_weights(checkpoint(folder, stage))
    return [each.numpy() for each in run.model.trainable_variables]


def test_training_goes_on_with_the_weights_and_all_else_sees_their_average(tmp_path):
    stage = Stage("top", 1, 4, 0.02)
    plain, averaged = Watch(), Watch()
    train_stages(make_run(), [stage], tmp_path / "plain", [plain])
    run = make_run(ema=0.8)
    stem = [weight for layer in run.groups[0].layers for weight in layer.weights]
    before = [each.numpy() for each in stem]
    history = train_stages(run, [stage], tmp_path / "averaged", [averaged]).history

    assert averaged.losses == plain.losses
    np.testing.assert_array_equal(averaged.weights[-1][0], plain.weights[-1][0])
    final = [each.numpy() for each in run.model.trainable_variables]
    for ours, expected in zip(final, average_of(averaged.weights, 0.8), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    for ours, raw in zip(final, averaged.weights[-1], strict=True):
        assert not np.allclose(ours, raw, rtol=1e-4, atol=1e-6)
    for ours, expected in zip(stem, before, strict=True):
        np.testing.assert_array_equal(ours, expected)

    held_out = run.dataset.splits["validation"]
    outputs = run.model(run.preprocessing.encode(held_out.samples))
    loss = float(run.head.loss(held_out.targets, outputs))
    assert history["val_loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)
    assert plain.validation[-1] != pytest.approx(loss, rel=1e-5)

    best = average_of(averaged.weights[: 5 * (int(history["val_accuracy"].argmax()) + 1)], 0.8)
    for ours, expected in zip(load_checkpoint(run, tmp_path / "averaged", stage), best, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_checkpoint_holds_the_average_without_a_validation_split_too(tmp_path):
    run = make_run(ema=0.8)
    train = {"train": run.dataset.splits["train"]}
    run = replace(run, dataset=replace(run.dataset, splits=train))
    stage, watch = Stage("top", 1, 2, 0.02), Watch()
    history = train_stages(run, [stage], tmp_path, [watch]).history
    best = average_of(watch.weights[: 5 * (int(history["accuracy"].argmax()) + 1)], 0.8)
    for ours, expected in zip(load_checkpoint(run, tmp_path, stage), best, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_stage_that_ends_early_ends_with_the_average_of_its_best_epoch(tmp_path):
    run = make_run(ema=0.8)
    stage = Stage("all", "all", 20, 0.02, patience=1)
    (record,) = train_stages(run, [stage], tmp_path).records
    assert record.epochs_run < 20
    final = [each.numpy() for each in run.model.trainable_variables]
    for ours, expected in zip(final, load_checkpoint(run, tmp_path, stage), strict=True):
        np.testing.assert_array_equal(ours, expected)


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_optimizer import Watch
from test_training import make_run
from tlkit.devices import make_strategy
from tlkit.plans import Stage
from tlkit.training import train_stages

SETTINGS = {settings}
report = []
for number, (training, options) in enumerate(SETTINGS):
    found = {{}}
    for name in ("cpu", "mirrored"):
        run = make_run(n=21, n_validation=5, batch_size=8, strategy=make_strategy(name), **training)
        stages = [Stage("top", 1, 2, **options), Stage("all", "all", 3, **options)]
        watch = Watch()
        train_stages(run, stages, Path({folder!r}) / f"{{name}}{{number}}", [watch])
        found[name] = {{
            "losses": [float(loss) for loss in watch.losses + watch.validation],
            "steps": {{path: int(count) for path, count in watch.steps_before[1].items()}},
        }}
    report.append(found)
print(json.dumps(report))
"""

# The gradients of these runs have norms of about 1: a limit of 0.1 clips nearly every step.
SGD = {"optimizer": "sgd", "momentum": 0.5, "warmup": 0.0, "weight_decay": 0.01}
MIRRORED_SETTINGS = [
    ({**SGD, "clip": {"by": "global_norm", "limit": 0.1}}, {"learning_rate": 0.3, "layer_decay": 0.5}),
    ({**SGD, "clip": {"by": "norm", "limit": 0.1}, "ema": 0.7}, {"learning_rate": 0.3}),
    ({**SGD, "clip": {"by": "value", "limit": 0.01}}, {"learning_rate": 0.3, "schedule": "one_cycle"}),
    (
        {"optimizer": "adamw", "clip": {"by": "global_norm", "limit": 0.1}, "ema": 0.7},
        {"learning_rate": 1e-3, "layer_decay": 0.5, "schedule": "plateau"},
    ),
]


def test_two_replicas_train_like_one_device_with_clipping_rates_per_group_and_averages(tmp_path):
    script = MIRRORED.format(
        tests=str(Path(__file__).parent), folder=str(tmp_path), settings=repr(MIRRORED_SETTINGS)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for found, settings in zip(json.loads(done.stdout.splitlines()[-1]), MIRRORED_SETTINGS, strict=True):
        one, two = found["cpu"], found["mirrored"]
        assert len(one["losses"]) == 5 * (3 + 1)
        np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5, err_msg=str(settings))
        assert two["steps"] == one["steps"]
        assert set(one["steps"].values()) == {0, 6}
