"""Layers that compute in another precision: which, when, and what it leaves behind."""

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

from tlkit.config import FixedPrecision, validate
from tlkit.errors import ConfigError, TrainingError
from tlkit.plans import Stage
from tlkit.training import require_compilable, train_stages
from tlkit.training.compiling import compile_stage
from tlkit.training.compute.precision import Casting, Setting, backbone_layers

from small_models import small_backbone
from test_training import MIRRORED, make_run, values

MIXED: list[FixedPrecision] = ["mixed_bfloat16", "mixed_float16"]
ALL = Stage("all", "all", 2, 0.003)


def dtypes(model):
    return {layer.dtype_policy.name for layer in model._flatten_layers()}


def test_the_layers_of_the_backbone_are_cast_and_those_of_the_head_are_not():
    run = make_run()
    names = {layer.name for layer in backbone_layers(run.model, run.groups)}
    assert {"stem_conv", "stem_bn", "stem_relu", "block2_conv"} <= names
    assert not names & {layer.name for layer in run.model.layers}


@pytest.mark.parametrize("precision", MIXED)
def test_layers_compute_in_it_inside_of_the_block_alone(precision):
    model = small_backbone().model
    layers = [layer for layer in model.layers if layer.name == "stem_conv"]
    casting = Casting(layers, precision)
    inputs = tf.ones((1, 16, 16, 3))
    with casting.applied():
        assert layers[0](inputs).dtype == precision.removeprefix("mixed_")
    assert layers[0](inputs).dtype == "float32"
    with pytest.raises(ValueError, match="incompatible"), casting.applied():
        layers[0](tf.ones((1, 16, 16, 5)))
    assert layers[0](inputs).dtype == "float32"
    assert dtypes(model) == {"float32"}


def test_a_block_inside_of_a_block_puts_nothing_back():
    """As of two replicas that are traced in turns."""
    layer = keras.layers.Dense(2)
    casting = Casting([layer], "mixed_bfloat16")
    first, second = casting.applied(), casting.applied()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert layer.compute_dtype == "bfloat16"
    second.__exit__(None, None, None)
    assert layer.compute_dtype == "float32"


@pytest.mark.parametrize("precision", MIXED)
def test_outputs_weights_and_gradients_are_float32(precision):
    run = make_run()
    model = compile_stage(run, ALL, None, setting=Setting(precision))
    inputs = tf.ones((2, 16, 16, 3))
    assert model(inputs, training=True).dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    exact = run.model(inputs).numpy()
    assert not np.array_equal(model(inputs).numpy(), exact)
    np.testing.assert_allclose(model(inputs), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("precision", "options"), [("mixed_bfloat16", {"accumulate": 2}), ("mixed_float16", {"ema": 0.9})]
)
def test_a_run_learns_as_in_float32_and_leaves_float32(precision, options, tmp_path):
    losses = {}
    for each in ("float32", precision):
        run = replace(make_run(**options), precision=each)
        trained = train_stages(run, [Stage("head", "head", 1, 0.003), ALL], tmp_path / each)
        losses[each] = trained.history["loss"].to_numpy()
        assert dtypes(run.model) == {"float32"}
        assert [record.compute["precision"] for record in trained.records] == [each] * 2
    np.testing.assert_allclose(losses[precision], losses["float32"], rtol=0.02)
    assert not np.array_equal(losses[precision], losses["float32"])


def test_float16_updates_what_float32_does_where_gradients_are_tiny():
    """Loss scaling: without it, gradients of 1e-8 are zero in float16."""
    moved = {}
    for precision in ("float32", "mixed_float16"):
        run = make_run(clip=None)
        before = values(run.model)
        tiny = replace(run, head=replace(run.head, loss=lambda y, p: keras.ops.mean(p, axis=-1) * 1e-6))
        model = compile_stage(tiny, Stage("all", "all", 1, 0.001), None, setting=Setting(precision))
        model.train_on_batch(np.ones((2, 16, 16, 3), "float32"), np.zeros(2, "int32"))
        model.train_on_batch(np.ones((2, 16, 16, 3), "float32"), np.zeros(2, "int32"))
        after = values(run.model)
        moved[precision] = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved["mixed_float16"] == moved["float32"]


def test_a_loss_beyond_float16_stops_the_stage_and_keeps_the_best_epoch(tmp_path):
    run = replace(make_run(), precision="mixed_float16")
    kept = {}

    class Explode(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                kept.update(values(run.model))
            kernel = run.groups[-1].layers[0].kernel
            kernel.assign(tf.ones_like(kernel) * 1e7)

    with pytest.raises(TrainingError, match="in stage 'all', epoch 2, batch 1: the loss") as e:
        train_stages(run, [ALL], tmp_path, [Explode()])
    assert e.value.keeps_best
    assert all(np.array_equal(kept[path], value) for path, value in values(run.model).items())


def test_gradients_that_stay_beyond_float16_stop_the_stage(tmp_path):
    run = make_run(n=200)

    @tf.custom_gradient
    def broken(x):
        return x, lambda gradient: gradient * np.inf

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    head = replace(run.head, loss=lambda y, p: loss(y, broken(p)))
    run = replace(run, head=head, precision="mixed_float16")
    with pytest.raises(TrainingError, match="batch 16: the gradients are beyond") as e:
        train_stages(run, [ALL], tmp_path)
    assert not e.value.keeps_best


def test_xla_where_it_cannot_work_is_an_error_before_training():
    run = replace(make_run(accumulate=2), xla="on")
    with pytest.raises(ConfigError, match=r"training.accumulate.*Use xla: off"):
        require_compilable(run)


def test_xla_is_read_as_people_write_it():
    assert validate({"xla": True}).xla == "on"
    assert validate({"xla": "off"}).xla == "off"
    with pytest.raises(ConfigError, match="xla: should be 'auto', 'on' or 'off', received 'yes'"):
        validate({"xla": "yes"})
    with pytest.raises(ConfigError, match=r"precision: should be .*mixed_float16.*, received 'float16'"):
        validate({"precision": "float16"})


REPLICAS = """
stage = Stage("all", "all", 1, 1e-3)
run = make_run(n=16, strategy=make_strategy("mirrored"))
apply_freeze(run.model, run.groups, stage)
model = compile_stage(run, stage, None, setting=Setting("mixed_float16"))
inputs = np.random.default_rng(0).normal(size=(16, 16, 16, 3)).astype("float32")
inputs[12:] = 1e30  # of the second replica
before = values(run.model)
model.fit(inputs, np.zeros(16, "int32"), batch_size=16, shuffle=False, verbose=0)
skipped = sorted(moved(before, run.model))
scale = float(model.optimizer.dynamic_scale.numpy())
model.fit(inputs[:8], np.zeros(8, "int32"), batch_size=8, verbose=0)
finite = all(np.isfinite(value).all() for value in values(run.model).values())
report = {{"skipped": skipped, "scale": scale, "finite": finite, "moved": len(moved(before, run.model))}}
print(json.dumps(report))
"""


def test_a_step_that_overflows_on_one_replica_is_skipped_on_all(tmp_path):
    imports = MIRRORED.partition("class Losses")[0] + (
        "from tlkit.training.freeze import apply_freeze\n"
        "from tlkit.training.compute.precision import Setting\n"
        "from tlkit.training.compiling import compile_stage\n"
    )
    script = (imports + REPLICAS).format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["skipped"] == []
    assert report["scale"] == 2.0**14
    assert report["finite"]
    assert report["moved"] > 0
