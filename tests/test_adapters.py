"""LoRA's adapters: what trains, what stays, and what is left of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from small_keras_hub import ARGUMENTS, small_entry
from test_feature_cache import EXACT, OFF, cached_run, train

from tlkit.backbones import load
from tlkit.config.plan import LoraPlan
from tlkit.errors import ConfigError, FrozenWeightsMoved, Interrupted
from tlkit.freezing import LayerGroup, group_layers
from tlkit.plans import Stage
from tlkit.training import adapted, apply_freeze, train_stages
from tlkit.training.adapters import adapter_weights, attach, find_targets, layers_of, merge
from tlkit.training.cache.stage import divide_stage
from tlkit.training.compiling import compile_stage
from tlkit.training.freeze import frozen_weights
from tlkit.training.lr_range import measure_rates

from test_training import make_run, moved, values

PLAN = LoraPlan(rank=2)
LORA = Stage("lora", "head", 2, 0.01, adapters=PLAN)
KERNELS = {f"{name}_conv/kernel" for name in ("stem", "block1", "block2")}
HEAD = {"head_output/kernel", "head_output/bias"}


def stage_of(**options):
    return replace(LORA, adapters=LoraPlan(**{"rank": 2, **options}))


def paths_of(backbone, **options):
    found = find_targets(layers_of(group_layers(backbone)), LoraPlan(**{"rank": 2, **options}), "small")
    return [layer.path for layer in found.values()]


def test_adapters_and_the_head_train_and_the_backbone_is_as_it_was_until_they_are_merged(tmp_path):
    run = make_run()
    apply_freeze(run.model, run.groups, Stage("head", "head", 1, 0.01))  # as an earlier stage leaves it
    before, trainable = values(run.model), []

    class Watch(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            trainable.extend(weight.path for weight in self.model.trainable_weights)
            now = values(run.model)
            assert {path for path in before if not np.array_equal(before[path], now[path])} == HEAD

    trained = train_stages(run, [LORA], tmp_path, [Watch()])
    adapters = {f"{name}_conv/lora_kernel_{part}" for name in ("stem", "block1", "block2") for part in "ab"}
    assert set(trainable) == adapters | HEAD
    assert moved(before, run.model) == KERNELS | HEAD
    (record,) = trained.records
    assert record.frozen_unchanged
    assert record.trained_groups == ["stem", "block1", "block2", "head"]
    sizes = [9 * 3 * 2 + 2 * 4, 9 * 4 * 2 + 2 * 6, 9 * 6 * 2 + 2 * 8]
    assert record.adapters["params"] == sum(sizes)
    assert record.trainable_params == sum(sizes) + sum(before[path].size for path in HEAD)
    assert (record.adapters["rank"], record.adapters["alpha"]) == (2, 2.0)


def test_a_weight_beside_an_adapter_that_moves_is_an_error(tmp_path):
    run = make_run()

    class Meddle(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            kernel = run.groups[0].layers[0]._kernel
            kernel.assign(kernel + 1e-6)

    with pytest.raises(FrozenWeightsMoved):
        train_stages(run, [LORA], tmp_path, [Meddle()])


def test_the_merged_model_gives_what_the_adapted_one_gave_and_holds_no_trace_of_it(tmp_path):
    run = make_run()
    pictures = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")
    plain, config = run.model.count_params(), run.model.to_json()
    stage = stage_of(alpha=8.0)
    with adapted(run, stage):
        apply_freeze(run.model, run.groups, stage)
        model = compile_stage(run, stage, divide_stage(run))
        model.fit(pictures, np.arange(8) % 3, epochs=5, verbose=0)
        given = run.model(pictures).numpy()
    np.testing.assert_allclose(run.model(pictures), given, atol=1e-5)
    assert np.abs(given).max() > 0.1
    assert run.model.count_params() == plain
    assert not any("lora" in weight.path for weight in run.model.weights)
    untrained = re.compile('"trainable": (true|false)')
    assert untrained.sub("", run.model.to_json()) == untrained.sub("", config)
    run.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(pictures), given, atol=1e-5)


def test_biases_beside_adapters_do_not_train():
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(4, name="inner")
    model = keras.Model(inputs, dense(inputs))
    group = LayerGroup("inner", (dense,), None)
    attach({0: dense}, PLAN, 0)
    apply_freeze(model, [group], LORA)
    assert [weight.name for weight in model.trainable_weights] == ["lora_kernel_a", "lora_kernel_b"]
    assert [weight.name for weight in frozen_weights([group], LORA)] == ["kernel", "bias"]


def test_the_scale_is_alpha_through_the_rank():
    run = make_run()
    kernel = run.groups[0].layers[0].kernel.numpy()
    with adapted(run, stage_of(alpha=6.0)):
        first, second = adapter_weights(run.groups[0].layers[0])
        second.assign(np.ones(second.shape))
        change = 3.0 * first.numpy() @ second.numpy()
    np.testing.assert_allclose(run.groups[0].layers[0].kernel, kernel + change, rtol=1e-5)


def test_adapters_change_nothing_before_they_have_learned_and_are_drawn_by_the_seed():
    pictures = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    drawn = []
    for seed in (0, 0, 1):
        run = replace(make_run(), seed=seed)
        before = run.model(pictures).numpy()
        with adapted(run, LORA) as adapters:
            np.testing.assert_array_equal(run.model(pictures), before)
        drawn.append(adapters.values[0, "lora_kernel_a"])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_a_transformer_gives_the_same_with_its_adapters_merged():
    backbone = load(small_entry("ViTBackbone"), weights=False)
    pictures = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    plain, params = np.asarray(backbone.model(pictures)), backbone.model.count_params()
    layers = find_targets(layers_of(group_layers(backbone)), PLAN, "small")
    attach(layers, PLAN, 0)
    paths = [weight.path for weight in backbone.model.weights]
    assert len(set(paths)) == len(paths), "rates and states of the optimizer go by the path"
    for layer in layers.values():
        second = adapter_weights(layer)[1]
        second.assign(np.random.default_rng(1).normal(size=second.shape))
    given = np.asarray(backbone.model(pictures))
    merge(layers.values())
    np.testing.assert_allclose(backbone.model(pictures), given, atol=1e-5)
    assert np.abs(given - plain).max() > 0.1
    assert backbone.model.count_params() == params


def test_what_lies_below_the_first_adapter_is_stored_and_trains_the_same(tmp_path):
    stage = replace(stage_of(targets=("block2",)), epochs=3)
    with_cache, trained = train(cached_run(EXACT, dropout=0.3), tmp_path / "a", stage)
    without, _ = train(cached_run(OFF, dropout=0.3), tmp_path / "b", stage)
    (record,) = trained.records
    assert record.cache["mode"] == "disk"
    assert record.trained_groups == ["block2", "head"]
    np.testing.assert_allclose(with_cache, without, atol=1e-6)
    assert len(set(np.round(with_cache, 6))) > 10


def test_with_an_adapter_in_the_first_layer_nothing_is_stored(tmp_path):
    _, trained = train(cached_run(EXACT), tmp_path, LORA)
    assert trained.records[0].cache["mode"] == "off"


@pytest.mark.parametrize(
    "training",
    [
        {"restore_best": True, "patience": 1},
        {"ema": 0.5},
        {"accumulate": 2, "optimizer": "muon"},
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (
                {"layer_decay": 0.5},
                *({"optimizer": name} for name in ("sgd", "lion", "adafactor", "adam")),
            )
        ),
    ],
    ids=str,
)
def test_settings_of_training_work_with_adapters(training, tmp_path):
    run = make_run(**training)
    before = values(run.model)
    train_stages(run, [replace(LORA, patience=training.get("patience"))], tmp_path)
    assert moved(before, run.model) == KERNELS | HEAD


def test_the_weights_of_the_best_epoch_come_back_with_its_adapters(tmp_path):
    run = make_run(restore_best=True)
    seen = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([weight.numpy() for weight in self.model.trainable_weights])

    trained = train_stages(run, [replace(LORA, epochs=3, learning_rate=1.0)], tmp_path, [Keep()])
    best = trained.records[0].best_epoch - 1
    adapters = {value.tobytes() for value in trained.adapters.values.values()}
    assert adapters <= {value.tobytes() for value in seen[best]}
    assert not adapters <= {value.tobytes() for value in seen[-1]} or best == 2


def test_rates_of_layer_groups_are_those_of_their_adapters():
    run = make_run()
    with adapted(run, LORA):
        stage = replace(LORA, learning_rates={"block1": 0.001})
        apply_freeze(run.model, run.groups, stage)
        optimizer = compile_stage(run, stage, None).optimizer
        rates = dict(zip((v.path for v in optimizer.trained), optimizer.rates.numpy(), strict=True))
        assert rates["block1_conv/lora_kernel_a"] == pytest.approx(0.1)
        assert rates["block2_conv/lora_kernel_a"] == rates["head_output/kernel"] == 1.0


def test_gradient_health_counts_an_adapter_to_its_group(tmp_path):
    train_stages(make_run(), [LORA], tmp_path)
    table = pd.read_csv(tmp_path / "logs" / "gradient_health.csv")
    assert table["trained"].all()
    assert (table["gradient_norm"] > 0).all()


def test_a_range_test_leaves_the_model_as_it_was():
    run = make_run()
    before = values(run.model)
    trainable = [weight.path for weight in run.model.trainable_weights]
    measure_rates(run, [LORA], steps=12)
    assert [weight.path for weight in run.model.trainable_weights] == trainable
    assert not moved(before, run.model)
    assert before.keys() == values(run.model).keys()


def test_an_interrupted_stage_leaves_the_best_model_merged(tmp_path):
    run = make_run()
    pictures = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    given = []

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            given.append(run.model(pictures).numpy())

        def on_train_batch_end(self, batch, logs=None):
            if given:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train_stages(run, [LORA], tmp_path, [Stop()])
    np.testing.assert_allclose(run.model(pictures), given[0], atol=1e-5)
    assert not any("lora" in weight.path for weight in run.model.weights)


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_adapters import LORA
from test_training import make_run, values
from tlkit.devices import make_strategy
from tlkit.training import train_stages

report = []
for name in ("cpu", "mirrored"):
    run = make_run(strategy=make_strategy(name), ema=0.7)
    trained = train_stages(run, [LORA], Path({folder!r}) / name)
    assert trained.records[0].frozen_unchanged
    found = [*trained.adapters.values.values(), *values(run.model).values()]
    report.append([float(value) for array in found for value in array.ravel()])
print(json.dumps(report))
"""


def test_two_replicas_learn_the_adapters_that_one_device_learns(tmp_path):
    script = MIRRORED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5)


def test_in_mixed_precision_what_is_merged_is_float32(tmp_path):
    run = replace(make_run(), precision="mixed_bfloat16")
    before = values(run.model)
    trained = train_stages(run, [LORA], tmp_path)
    assert trained.records[0].compute["precision"] == "mixed_bfloat16"
    first, second = trained.adapters.values[0, "lora_kernel_a"], trained.adapters.values[0, "lora_kernel_b"]
    np.testing.assert_allclose(
        values(run.model)["stem_conv/kernel"], before["stem_conv/kernel"] + first @ second, atol=1e-6
    )
    assert moved(before, run.model) == KERNELS | HEAD


@pytest.mark.parametrize(
    ("family", "found"),
    [
        ("ViTBackbone", ["block1/layer/mha/query", "block1/layer/mha/value"]),
        (
            "DINOV2Backbone",
            ["block1/layer/attention/attention/query", "block1/layer/attention/attention/value"],
        ),
        ("DINOV3Backbone", ["block1/layer/attention/q_proj", "block1/layer/attention/v_proj"]),
        ("SwinTransformerBackbone", ["stage1_block1/layer/attn/attention_qkv"]),
    ],
)
def test_automatic_targets_are_the_queries_and_values_of_attention(family, found):
    paths = paths_of(load(small_entry(family), weights=False))
    assert paths[: len(found)] == found
    assert len(paths) == (4 if "Swin" in family else 2 * ARGUMENTS[family]["num_layers"])


def test_without_attention_automatic_targets_are_the_dense_and_convolutional_layers_with_room():
    run = make_run()
    layers = layers_of(run.groups)
    found = find_targets(layers, LoraPlan(rank=5), "small")
    assert [layer.path for layer in found.values()] == ["block1_conv", "block2_conv"]


def test_embeddings_have_adapters_where_they_are_asked_for():
    inputs = keras.Input((3,), dtype="int32")
    embedding = keras.layers.Embedding(9, 4, name="words")
    model = keras.Model(inputs, embedding(inputs))
    ids = np.array([[1, 2, 3]])
    layers = find_targets([embedding], LoraPlan(rank=2, targets=("words",)), "mine")
    attach(layers, PLAN, 0)
    adapter_weights(embedding)[1].assign(np.ones((2, 4)))
    given = model(ids).numpy()
    merge(layers.values())
    np.testing.assert_allclose(model(ids), given, atol=1e-6)
    assert [weight.name for weight in model.weights] == ["embeddings"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("block3",)}, "'block3' in its path. Allowed: stem_conv, block1_conv, block2_conv."),
        ({"rank": 9}, "room for rank 8, received 9"),
        ({"rank": 5, "targets": ("conv",)}, "'stem_conv' has room for rank 4, received 5"),
    ],
)
def test_targets_that_cannot_be_are_named(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_targets(layers_of(make_run().groups), LoraPlan(**options), "small")


def test_a_backbone_without_such_layers_is_refused():
    with pytest.raises(ConfigError, match="'mine' has none"):
        find_targets([keras.layers.BatchNormalization(name="norm")], PLAN, "mine")


def test_a_backbone_with_adapters_of_its_own_is_refused():
    layer = keras.layers.Dense(4)
    layer.build((None, 4))
    layer.enable_lora(2)
    with pytest.raises(ConfigError, match="has adapters of LoRA already"):
        find_targets([layer], PLAN, "mine")


def test_a_layer_that_is_shared_has_one_adapter():
    run = make_run()
    layers = layers_of([*run.groups, *run.groups])
    assert len(layers) == len({id(layer) for layer in layers}) == 6
