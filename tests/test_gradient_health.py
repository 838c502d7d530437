"""Gradient health: what is measured, what is said, and that training is not changed by it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from tlkit.config import CacheConfig
from tlkit.plans import Stage
from tlkit.training import train_stages
from tlkit.training.health.gradients import COLUMNS, health_file
from tlkit.training.health.words import explain_health

from test_training import make_run, values

HEAD = Stage("head", "head", 2, 0.01)
TOP = Stage("top", 1, 1, 0.005)
ALL = Stage("all", "all", 2, 0.005)


def train(folder, stages, health=True, **settings):
    run = make_run(gradient_health=health, **settings)
    history = train_stages(run, stages, folder).history
    return run, history


def test_weights_and_history_are_the_same_bits_with_and_without(tmp_path):
    ends = []
    for health in (False, True):
        folder = tmp_path / str(health)
        run, history = train(folder, [TOP, ALL], health, augment="default", dropout=0.3, batch_norm="train")
        ends.append(([each.numpy() for each in run.model.variables], history))  # seeds of layers, too
    assert all(np.array_equal(one, other) for one, other in zip(ends[0][0], ends[1][0], strict=True))
    pd.testing.assert_frame_equal(ends[0][1], ends[1][1], check_exact=True)


def test_there_is_a_row_for_every_epoch_and_group_and_frozen_ones_are_empty(tmp_path):
    train(tmp_path, [TOP, ALL])
    table = pd.read_csv(health_file(tmp_path))
    assert list(table) == list(COLUMNS)
    groups = ["stem", "block1", "block2", "head"]
    assert list(table["group"]) == groups * 3
    assert list(zip(table["stage"], table["epoch"], strict=True))[::4] == [("top", 1), ("all", 1), ("all", 2)]
    top = table[table["stage"] == "top"].set_index("group")
    assert list(top["trained"]) == [False, False, True, True]
    measured = ["gradient_norm", "weight_norm", "update_ratio", "activation_scale", "learning_rate"]
    assert top.loc[["stem", "block1"], [*measured, "dead_relu_share"]].isna().all(axis=None)
    of_all = table[table["stage"] == "all"]
    assert (of_all[measured] > 0).all(axis=None)
    with_relu = of_all[of_all["group"] != "head"]["dead_relu_share"]
    assert with_relu.between(0, 1).all()
    assert of_all[of_all["group"] == "head"]["dead_relu_share"].isna().all()


def test_the_numbers_are_those_of_a_step_by_hand(tmp_path):
    """One batch of all examples, plain SGD: the update is the rate times the gradient."""
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip": None}
    run = make_run(n=8, schedule="constant", warmup=0.0, **plain)
    stage = Stage("all", "all", 1, 0.1)
    before = values(run.model)
    train_stages(run, [stage], tmp_path)
    table = pd.read_csv(health_file(tmp_path)).set_index("group")
    after = values(run.model)
    for group, prefix in (("stem", "stem_"), ("block2", "block2_"), ("head", "head_")):
        paths = [path for path in before if path.startswith(prefix) and "_bn" not in path]
        weight = np.sqrt(sum(np.sum(before[path].astype(float) ** 2) for path in paths))
        update = np.sqrt(sum(np.sum((after[path] - before[path].astype(float)) ** 2) for path in paths))
        assert table.loc[group, "weight_norm"] == pytest.approx(weight, rel=1e-5)
        assert table.loc[group, "update_ratio"] == pytest.approx(update / weight, rel=1e-5)
        assert table.loc[group, "gradient_norm"] == pytest.approx(update / 0.1, rel=1e-3)
        assert table.loc[group, "learning_rate"] == pytest.approx(0.1)


def test_dead_channels_are_counted(tmp_path):
    run = make_run()
    norm = next(layer for layer in run.model._flatten_layers() if layer.name == "block1_bn")
    norm.beta.assign([-100.0, -100.0, 100.0, 100.0, 100.0, 100.0])
    train_stages(run, [Stage("all", "all", 1, 1e-9)], tmp_path)
    table = pd.read_csv(health_file(tmp_path)).set_index("group")
    assert table.loc["block1", "dead_relu_share"] == pytest.approx(1 / 3)


def test_stored_features_are_measured_where_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    tables = {}
    for mode in ("off", "memory"):
        run = make_run()
        ids = run.dataset.splits["train"].ids.tolist() + run.dataset.splits["validation"].ids.tolist()
        manifest = replace(run.dataset.manifest, table=pd.DataFrame({"id": ids, "hash": ids}))
        run = replace(
            run,
            cache=CacheConfig(mode=mode),
            dataset=replace(run.dataset, manifest=manifest),
            backbone="small",
        )
        trained = train_stages(run, [TOP], tmp_path / mode)
        assert (trained.features is not None) == (mode == "memory")
        tables[mode] = pd.read_csv(health_file(tmp_path / mode))
    pd.testing.assert_frame_equal(tables["off"], tables["memory"], rtol=1e-4)


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {tests!r})
from pathlib import Path
import numpy as np
from test_gradient_health import ALL, train
from tlkit.devices import make_strategy
ends = {{}}
for name, health in (("cpu", True), ("mirrored", False), ("mirrored", True)):
    folder = Path({folder!r}) / f"{{name}}{{health}}"
    run, _ = train(folder, [ALL], health, n=37, strategy=make_strategy(name), dropout=0.2, batch_norm="train")
    ends[name, health] = [
        copy.numpy() for each in run.model.variables
        for copy in run.strategy.experimental_local_results(each.value)
    ]
pairs = zip(ends["mirrored", True], ends["mirrored", False], strict=True)
print(json.dumps(all(np.array_equal(one, other) for one, other in pairs)))
"""


def test_two_replicas_are_measured_and_not_changed(tmp_path):
    script = MIRRORED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) is True
    one, two = (pd.read_csv(health_file(tmp_path / name)) for name in ("cpuTrue", "mirroredTrue"))
    assert list(one["group"]) == list(two["group"])
    # In the first epoch the weights are nearly the same; what dropout drops is not.
    ratio = two["gradient_norm"][:4] / one["gradient_norm"][:4]
    assert ratio.between(0.5, 2).all(), ratio


def make_table(epochs=3, groups=("stem", "block1", "head"), **columns):
    rows = [
        {"epoch": epoch + 1, "group": group, "trained": True, "gradient_norm": 1.0, "update_ratio": 1e-3}
        for epoch in range(epochs)
        for group in groups
    ]
    table = pd.DataFrame(rows).assign(dead_relu_share=0.1)
    for name, of_group in columns.items():
        for group, value in of_group.items():
            table.loc[table["group"] == group, name] = value
    return table


def make_history(loss, val_loss=None):
    return pd.DataFrame({"loss": loss, **({} if val_loss is None else {"val_loss": val_loss})})


FINE = make_history([1.0, 0.80, 0.79], [1.0, 0.9, 0.9])


@pytest.mark.parametrize(
    ("table", "history", "said"),
    [
        (
            make_table(gradient_norm={"stem": 1e-8}),
            FINE,
            ["gradients vanish in stem", "training.learning_rates"],
        ),
        (
            make_table(gradient_norm={"block1": 1e5}),
            FINE,
            ["gradients explode in block1", "training.clip.limit"],
        ),
        (make_table(gradient_norm={"head": np.inf}), FINE, ["gradients explode in head", "--learning-rate"]),
        (make_table(dead_relu_share={"stem": 0.9}), FINE, ["in stem 90% of the ReLU channels give nothing"]),
        (
            make_table(update_ratio={"stem": 0.5}),
            FINE,
            ["rate is too high for stem", "by up to 50%", "lr-find"],
        ),
        (
            make_table(),
            make_history([1.0, 2.0, 3.0]),
            ["rate is too high: the training loss rose", "lr-find"],
        ),
        (
            make_table(update_ratio=dict.fromkeys(("stem", "block1", "head"), 1e-9)),
            FINE,
            ["rate is too low", "Raise --learning-rate"],
        ),
        (
            make_table(),
            make_history([1.0, 0.5, 0.2], [0.8, 0.9, 1.2]),
            ["overfits: since epoch 1", "training.patience=2", "head.dropout"],
        ),
        (
            make_table(),
            make_history([1.0, 0.8, 0.6], [1.0, 0.8, 0.7]),
            ["underfits", "More --epochs (it had 3)"],
        ),
    ],
)
def test_what_stands_out_is_said_with_the_setting_to_change(table, history, said):
    (sentence,) = explain_health(table, history, Stage("all", "all", 3, 1e-3))
    assert sentence.startswith("Stage 'all': ")
    for part in said:
        assert part in sentence


def test_nothing_is_said_where_nothing_stands_out():
    assert explain_health(make_table(), FINE, Stage("all", "all", 3, 1e-3)) == []
    nearly_done = make_history([1.0, 0.8, 0.75], [1.0, 0.8, 0.78])
    assert explain_health(make_table(), nearly_done, Stage("all", "all", 3, 1e-3)) == []
    assert explain_health(make_table(1), make_history([1.0], [1.0]), Stage("all", "all", 1, 1e-3)) == []


def test_a_rate_that_is_too_high_is_said_in_a_real_run(tmp_path, capfd):
    run = make_run(clip=None, optimizer="sgd", momentum=0.0, weight_decay=0.0, warmup=0.0, batch_norm="train")
    train_stages(run, [Stage("all", "all", 2, 30.0)], tmp_path)
    assert "the rate is too high" in capfd.readouterr().err


def test_a_layer_with_an_activation_of_its_own_is_a_relu():
    from tlkit.training.health.gradients import _is_relu

    assert _is_relu(keras.layers.Conv2D(2, 1, activation="relu"))
    assert _is_relu(keras.layers.Activation("relu6"))
    assert _is_relu(keras.layers.ReLU())
    assert not _is_relu(keras.layers.Dense(2, activation="gelu"))
    assert not _is_relu(keras.layers.Conv2D(2, 1))


def test_what_cannot_be_measured_is_said_and_ends_no_training(tmp_path, monkeypatch, capfd):
    def fail(*_):
        raise ValueError("a layer that gives no tensors")

    monkeypatch.setattr("tlkit.training.health.gradients.replay", fail)
    _, history = train(tmp_path, [HEAD])
    assert len(history) == 2
    assert "Gradient health: not measured: a layer that gives no tensors" in capfd.readouterr().err
    table = pd.read_csv(health_file(tmp_path)).set_index("group")
    assert table["gradient_norm"].isna().all()
    assert (table.loc["head", "update_ratio"] > 0).all()
