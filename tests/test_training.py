"""The stage loop: what trains, what does not, and the proof of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tlkit.config import PLANS, HeadConfig, PreprocessingConfig, TrainingConfig, validate
from tlkit.data import Dataset, Examples, Manifest
from tlkit.devices import make_strategy
from tlkit.errors import ConfigError, FrozenWeightsMoved, Interrupted, StorageError, TrainingError
from tlkit.freezing import group_layers
from tlkit.heads import make_head
from tlkit.model import build_model
from tlkit.plans import Stage, make_plan
from tlkit.preprocessing import make_preprocessing
from tlkit.training import Trainable, choose_batch_size, train_stages
from tlkit.training.batch_size import find_fitting

from small_models import small_backbone, small_entry

SIZE = 16


def make_examples(n, seed=0):
    """Three colours to tell apart, with noise."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, n).astype("int32")
    samples = rng.integers(0, 120, (n, SIZE, SIZE, 3))
    samples[np.arange(n), :, :, targets] += 60
    ids = np.array([f"{seed}-{index}" for index in range(n)])
    return Examples(ids=ids, paths=None, samples=samples.astype("uint8"), targets=targets)


def make_run(
    n=40,
    batch_size=8,
    strategy=None,
    batch_norm="frozen",
    augment="none",
    dropout=0.0,
    seed=0,
    n_validation=12,
    **training,
):
    keras.utils.set_random_seed(seed)
    strategy = strategy or make_strategy("cpu")
    preprocessing = make_preprocessing(
        small_entry(SIZE).input, PreprocessingConfig(image_size=SIZE, augment=augment)
    )
    with strategy.scope():
        backbone = small_backbone(SIZE, dropout)
        head = make_head(HeadConfig(dropout=dropout), n_outputs=3)
        model = build_model(backbone, head)
    splits = {"train": make_examples(n), "validation": make_examples(n_validation, seed=1)}
    ids = np.concatenate([examples.ids for examples in splits.values()])
    dataset = Dataset(
        manifest=Manifest(pd.DataFrame({"id": ids}), ("a", "b", "c")),
        splits=splits,
        report=pd.DataFrame(),
        name="colours",
    )
    return Trainable(
        model=model,
        head=head,
        groups=group_layers(backbone),
        dataset=dataset,
        preprocessing=preprocessing,
        strategy=strategy,
        training=TrainingConfig(**{"restore_best": False, **training}),
        global_batch_size=batch_size,
        batch_norm=batch_norm,
        seed=seed,
    )


def values(model):
    return {weight.path: weight.numpy().copy() for weight in model.weights}


def moved(before, model):
    return {path for path, value in values(model).items() if not np.array_equal(before[path], value)}


def norm_weights(model, kinds):
    return {
        weight.path
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
        if weight.path.rsplit("/", 1)[-1] in kinds
    }


@pytest.mark.parametrize(
    "plan",
    [*(name for name in PLANS if name != "lora"), [{"train": 2, "epochs": 1}, {"train": "all", "epochs": 1}]],
    ids=str,
)
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_what_a_stage_says_it_trains_is_what_moved_and_nothing_else(plan, batch_norm, tmp_path):
    run = make_run(batch_norm=batch_norm)
    stages = make_plan(
        validate({"plan": plan}).plan, len(run.groups), TrainingConfig(epochs=1, learning_rate=0.05)
    )
    statistics = norm_weights(run.model, {"moving_mean", "moving_variance"})
    for stage in stages:
        before = values(run.model)
        trained = train_stages(run, [stage], tmp_path)
        (record,), history = trained.records, trained.history
        trained = {
            path for group in run.groups if group.name in record.trained_groups for path in group.weights
        }
        if batch_norm == "frozen":
            trained -= norm_weights(run.model, {"gamma", "beta", "moving_mean", "moving_variance"})
        head = {weight.path for layer in run.model.layers[-1:] for weight in layer.weights}
        assert moved(before, run.model) == trained | head
        assert record.trainable_params == sum(before[path].size for path in (trained | head) - statistics)
        assert record.frozen_unchanged
        assert list(history["epoch"]) == [1]


def test_a_frozen_weight_that_moves_is_an_error(tmp_path):
    run = make_run()

    class Meddle(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            weight = run.groups[0].layers[1].moving_mean
            weight.assign(weight + 1e-6)

    with pytest.raises(FrozenWeightsMoved, match="stem_bn/moving_mean"):
        train_stages(run, [Stage("head", "head", 1, 0.01)], tmp_path, [Meddle()])


def test_a_model_learns(tmp_path):
    run = make_run(n=120, batch_norm="train")
    history = train_stages(run, [Stage("all", "all", 10, 0.02)], tmp_path).history
    assert history["val_accuracy"].iloc[-1] > 0.9


def test_the_best_epoch_comes_back_at_the_end_of_a_stage(tmp_path):
    run = make_run(restore_best=True)

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.layers[-1].bias.assign([0.0, 50.0, 100.0])
            if epoch == 1:
                self.best = self.model.layers[-1].bias.numpy()

    train_stages(run, [Stage("head", "head", 3, 1e-4)], tmp_path, [Spoil()])
    assert np.abs(run.model.layers[-1].bias.numpy()).max() < 1


def test_patience_ends_a_stage_early(tmp_path):
    run = make_run(schedule="constant", warmup=0.0)
    trained = train_stages(run, [Stage("head", "head", 10, 1e-12, patience=2)], tmp_path)
    records, history = trained.records, trained.history
    assert records[0].epochs_run == len(history) < 10
    assert records[0].monitor == "val_accuracy"
    assert records[0].best_value == history["val_accuracy"].max()
    assert history["val_accuracy"][records[0].best_epoch - 1] == records[0].best_value


def test_an_interrupt_puts_back_the_best_weights_of_all_stages(tmp_path):
    run = make_run(n=120, batch_norm="train")
    train_stages(run, [Stage("good", "all", 10, 0.02)], tmp_path)
    best = values(run.model)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    spoilt = Stage("spoilt", "all", 3, 50.0)
    run = replace(run, training=TrainingConfig(clip_norm=None, warmup=0.0))
    with pytest.raises(Interrupted):
        train_stages(run, [Stage("good", "head", 1, 1e-9), spoilt], tmp_path, [Interrupt()])
    assert not [path for path, value in values(run.model).items() if np.abs(value - best[path]).max() > 1e-3]


def test_checkpoints_and_logs_are_left_for_every_stage(tmp_path):
    train_stages(make_run(), [Stage("head", "head", 1, 0.01), Stage("all", "all", 1, 0.01)], tmp_path)
    for name in ("head", "all"):
        assert (tmp_path / "stages" / f"{name}.weights.h5").exists()
        assert (tmp_path / "logs" / f"{name}.csv").exists()
        assert list((tmp_path / "logs" / "tensorboard" / name).rglob("events*"))
    assert not list(tmp_path.rglob("*partial*"))


def test_a_disk_without_room_for_a_checkpoint_is_one_line(tmp_path, monkeypatch):
    room = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(StorageError, match=r"Cannot write .*head.weights.h5: No space left on device"):
        train_stages(make_run(), [Stage("head", "head", 1, 0.01)], tmp_path)
    assert not list(tmp_path.rglob("*.h5"))


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(tmp_path):
    run = make_run(clip_norm=None, optimizer="sgd", momentum=0.0, weight_decay=0.0, warmup=0.0)
    run.model.layers[-1].bias.assign([np.nan, 0.0, 0.0])
    with pytest.raises(TrainingError, match=r"loss is nan in stage 'head', epoch 1, batch 1 \(examples 0-"):
        train_stages(run, [Stage("head", "head", 1, 0.01)], tmp_path)


def test_the_same_seed_gives_the_same_weights(tmp_path):
    results = []
    for name in ("a", "b"):
        run = make_run(augment="default", dropout=0.3)
        train_stages(run, [Stage("all", "all", 2, 0.01)], tmp_path / name)
        results.append(values(run.model))
    for path, value in results[0].items():
        np.testing.assert_allclose(value, results[1][path], rtol=1e-4, atol=1e-6, err_msg=path)


def test_running_out_of_memory_names_the_size_that_fits(tmp_path):
    class Greedy(keras.layers.Layer):
        """Stands in for a device with room for four pictures."""

        def call(self, x):
            room = tf.debugging.assert_less(tf.shape(x)[0], 5)
            with tf.control_dependencies([room]):
                return keras.ops.mean(x, axis=(1, 2))[:, :3]

    def step(size):
        if size > 4:
            raise tf.errors.ResourceExhaustedError(None, None, "no room")

    assert find_fitting(32, step) == 4
    assert find_fitting(5, lambda size: step(9)) is None
    assert find_fitting(6, step, n_replicas=2) == 2
    assert find_fitting(12, lambda size: step(9), n_replicas=3) is None


def test_automatic_batch_size_is_never_larger_than_the_data():
    model = make_run().model
    assert choose_batch_size("auto", model, 10_000, 1) == 32
    assert choose_batch_size("auto", model, 20, 1) == 20
    assert choose_batch_size(64, model, 10_000, 1) == 64
    assert choose_batch_size(64, model, 21, 2) == 20


def test_a_batch_size_that_does_not_divide_among_the_replicas_is_refused():
    with pytest.raises(ConfigError, match="multiple of the 2 replicas, received 9. Use 10"):
        choose_batch_size(9, make_run().model, 100, 2)


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {tests!r})
from pathlib import Path
import keras, numpy as np
from test_training import make_run, values, moved
from tlkit.devices import make_strategy
from tlkit.plans import Stage
from tlkit.training import train_stages

class Losses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []
    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(logs["loss"]))
    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(float(logs["val_loss"]))

# A rate of 1e-3: Adam divides small gradients by their size, which at high rates makes rounding visible.
stages = [Stage("head", "head", 2, 1e-3), Stage("top", 1, 2, 1e-3), Stage("all", "all", 2, 1e-3)]
losses = {{}}
for name in ("cpu", "mirrored"):
    run = make_run(n=37, n_validation=5, batch_size=8, strategy=make_strategy(name))
    watch = Losses()
    before = values(run.model)
    train_stages(run, stages[:1], Path({folder!r}) / name, [watch])
    moved_by_head = sorted(moved(before, run.model))
    train_stages(run, stages[1:], Path({folder!r}) / name, [watch])
    losses[name] = watch.seen
print(json.dumps({{"losses": losses, "moved_by_head": moved_by_head}}))
"""


def test_two_replicas_train_like_one_device_step_by_step(tmp_path):
    """37 examples in batches of 8: the last 5 split into 3 and 2, and so does the validation."""
    script = MIRRORED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    one, two = (np.array(report["losses"][name]) for name in ("cpu", "mirrored"))
    assert len(one) == 6 * (5 + 1)
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert all(path.startswith("head_output") for path in report["moved_by_head"])
