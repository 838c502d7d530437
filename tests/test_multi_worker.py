"""Worker processes that share a run, over loopback: they do together what one process does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import make_pictures
from worker_processes import Ended, run_workers, succeeded

TESTS = str(Path(__file__).parent)

# Three stages, over one device, two replicas or two workers: python -c … strategy file
STAGES = f"""
import json, sys
sys.path.insert(0, {TESTS!r})
name, file = sys.argv[1:]
if name == "mirrored":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tlkit.devices import make_strategy
strategy = make_strategy(name)
from pathlib import Path
import keras, numpy as np
from test_training import make_run, values
from tlkit.plans import Stage
from tlkit.training import train_stages

class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.losses, self.epochs = [], []
    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append([float(logs[key]) for key in ("loss", "accuracy", "val_loss", "val_accuracy")])

def train(stages, of=lambda run: run, **options):
    run = of(make_run(n=37, n_validation=5, batch_size=8, strategy=strategy, **options))
    watch = Watch()
    trained = train_stages(run, stages, Path(file).parent / (Path(file).stem + "-run"), [watch])
    return run, trained, watch

# A rate of 1e-3: Adam divides small gradients by their size, which at high rates makes rounding visible.
def plan(epochs, **options):
    stages = (("head", "head"), ("top", 1), ("all", "all"))
    return [Stage(name, which, epochs, 1e-3, **options) for name, which in stages]

def save(report, model):
    np.savez(file, **{{path.replace("/", "|"): value for path, value in values(model).items()}})
    print(json.dumps(report))
"""

PLAIN = """
run, trained, watch = train(plan(2))
held_out = run.dataset.splits["validation"]
logits = run.model(run.preprocessing.encode(held_out.samples), training=False)
loss = float(np.mean(run.head.loss(held_out.targets, logits)))
accuracy = float(np.mean(np.argmax(logits, axis=1) == held_out.targets))
frozen = [record.frozen_unchanged for record in trained.records]
report = {"losses": watch.losses, "epochs": watch.epochs, "by_hand": [loss, accuracy], "frozen": frozen}
save(report, run.model)
"""


def alone(script: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def together(script: str, folder: Path) -> list[dict]:
    commands = [["-c", script, "multi_worker", str(folder / f"{name}.npz")] for name in ("first", "second")]
    return [json.loads(each.out.splitlines()[-1]) for each in succeeded(run_workers(commands))]


def weights_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


def assert_workers_agree(folder: Path) -> None:
    first, second = weights_of(folder, "first"), weights_of(folder, "second")
    assert first.keys() == second.keys()
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)


def test_two_workers_train_like_one_device_and_like_two_replicas_step_by_step(tmp_path):
    """37 examples in batches of 8: the last 5 split into 3 and 2, and so does the validation."""
    script = STAGES + PLAIN
    one = alone(script, "cpu", str(tmp_path / "cpu.npz"))
    replicas = alone(script, "mirrored", str(tmp_path / "mirrored.npz"))
    first, second = together(script, tmp_path)
    assert len(one["losses"]) == 3 * 2 * 5
    for other in (replicas, first, second):
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-4)
        np.testing.assert_allclose(other["epochs"], one["epochs"], rtol=1e-4)
        # What the last epoch's validation measured is what the model gives.
        np.testing.assert_allclose(other["epochs"][-1][2:], other["by_hand"], rtol=1e-5)
        assert other["frozen"] == [True] * 3
    expected = weights_of(tmp_path, "cpu")
    for name in ("mirrored", "first"):
        for path, value in weights_of(tmp_path, name).items():
            np.testing.assert_allclose(value, expected[path], atol=1e-3, err_msg=f"{name} {path}")
    assert_workers_agree(tmp_path)


OPTIONS = """
from dataclasses import replace
import pandas as pd
from tlkit.config import CacheConfig, MixConfig
from tlkit.data import Manifest

def stored(run):
    ids = np.concatenate([examples.ids for examples in run.dataset.splits.values()])
    table = pd.DataFrame({"id": ids, "hash": [f"hash of {name}" for name in ids]})
    dataset = replace(run.dataset, manifest=Manifest(table, run.dataset.manifest.classes))
    cache = CacheConfig(mode="memory", storage="float32")
    return replace(run, dataset=dataset, cache=cache, augmentations=(), backbone="small")

def weighed(run):
    return replace(run, example_weights=np.linspace(0.5, 1.5, 37))

settings = {
    "ema and accumulation": dict(ema=0.7, accumulate=2),
    "clipping and mixed pictures": dict(clip_norm=0.1, mix=MixConfig(mixup=1.0, cutmix=1.0)),
    "weights of examples": dict(of=weighed),
    "stored features": dict(of=stored),
}
report = {}
for what, options in settings.items():
    run, trained, watch = train(plan(2), **options)
    report[what] = {"losses": watch.losses, "epochs": watch.epochs}
    report[what]["cache"] = [record.cache["mode"] for record in trained.records]
hopeless = dict(epochs=6, learning_rate=1e-12, patience=1, schedule="constant")
stopping = [replace(stage, **hopeless) for stage in plan(1)]
run, trained, watch = train(stopping, restore_best=True)
report["early stopping"] = {"losses": watch.losses, "epochs": watch.epochs, "cache": []}
run, trained, watch = train(plan(2), batch_norm="train")
report["frozen"] = [record.frozen_unchanged for record in trained.records]
save(report, run.model)
"""


@pytest.mark.slow
def test_two_workers_do_what_one_device_does_with_every_option(tmp_path):
    script = STAGES + OPTIONS
    one = alone(script, "cpu", str(tmp_path / "cpu.npz"))
    first, second = together(script, tmp_path)
    assert first == second
    assert first.pop("frozen") == one.pop("frozen") == [True] * 3
    assert first["stored features"]["cache"] == ["memory", "memory", "off"]
    assert len(first["early stopping"]["epochs"]) < 3 * 6
    for what, expected in one.items():
        assert first[what]["cache"] == expected["cache"]
        np.testing.assert_allclose(first[what]["epochs"], expected["epochs"], rtol=1e-4, err_msg=what)
        np.testing.assert_allclose(first[what]["losses"], expected["losses"], rtol=1e-4, err_msg=what)
    # BatchNorm in training sees the part of a batch that its worker has; what it learned is one and the same.
    assert_workers_agree(tmp_path)


def shell(*arguments: str) -> list[str]:
    return ["-m", "tlkit", "finetune", *arguments]


def finetune_together(*arguments: str, seconds: float = 300.0) -> list[Ended]:
    return run_workers([shell(*arguments)] * 2, seconds)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "photos", per_class=11)


SMALL = ("--backbone", "image_cnn", "--image-size", "32", "--batch-size", "8", "--epochs", "2")


def test_a_run_of_two_workers_is_written_once_and_its_metrics_are_those_of_its_outputs(photos, tmp_path):
    folder = tmp_path / "runs" / "one"
    options = (*SMALL, "preprocessing.augment=none", "head.dropout=0", "--json", "--out", str(folder))
    chief, other = succeeded(finetune_together("--data", str(photos), *options))
    assert (other.out, other.err) == ("", "")
    printed = json.loads(chief.out)
    result = json.loads((folder / "result.json").read_text())
    assert printed["metrics"] == result["metrics"]
    assert [path.name for path in folder.parent.iterdir()] == ["one"], "the others write elsewhere"
    assert (folder / "export" / "saved_model.pb").exists()

    predictions = pd.read_csv(folder / "predictions.csv")
    for split, rows in predictions.groupby("split"):
        accuracy = float((rows["label"] == rows["predicted"]).mean())
        assert result["metrics"][split]["accuracy"] == pytest.approx(accuracy)
    # What was logged while it trained counted every held-out picture once, too.
    history = pd.read_csv(folder / "history.csv")
    best = result["stages"][-1]["best_value"]
    assert best == pytest.approx(history["val_accuracy"].max())
    assert result["metrics"]["validation"]["accuracy"] == pytest.approx(best)


@pytest.mark.slow
def test_two_workers_train_on_texts_like_one_process(tmp_path):
    words = {"animal": "cat dog bird fish", "colour": "red green blue grey"}
    random = np.random.default_rng(0)
    rows = [
        {"text": " ".join(random.choice(words[label].split(), random.integers(2, 40))), "label": label}
        for label in random.choice(list(words), 67)
    ]
    table = tmp_path / "texts.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    options = (
        *("--data", str(table), "--backbone", "text_cnn", "--batch-size", "8", "--epochs", "2"),
        *("--sequence-length", "32", "preprocessing.augment=none", "head.dropout=0", "export=false"),
        "architecture.dropout=0",
    )
    succeeded(finetune_together(*options, "--out", str(tmp_path / "two")))
    command = [sys.executable, *shell(*options, "--strategy", "cpu", "--out", str(tmp_path / "one"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (pd.read_csv(tmp_path / name / "history.csv") for name in ("one", "two"))
    for column in ("loss", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(two[column], one[column], rtol=1e-4, err_msg=column)
    outputs = [np.load(tmp_path / name / "outputs.npz")["outputs"] for name in ("one", "two")]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-3)


@pytest.mark.slow
def test_workers_that_see_different_data_are_told_before_training(photos, tmp_path):
    fewer = make_pictures(tmp_path / "fewer", per_class=10)
    out = ("--out", str(tmp_path / "run"))
    ended = run_workers([shell("--data", str(data), *SMALL, *out) for data in (photos, fewer)])
    for each in ended:
        assert each.code == 2
        assert "Error: The workers start from different examples." in each.err
    assert not (tmp_path / "run").exists()


LATE = """
import tensorflow as tf
tf.constant(1) + 1
from tlkit import make_strategy
from tlkit.errors import ConfigError
try:
    make_strategy("multi_worker")
except ConfigError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_strategy_that_comes_too_late_is_told():
    (ended,) = succeeded(run_workers([["-c", LATE]]))
    assert "has to be made before anything else of TensorFlow runs" in ended.out


LOST = """
import os, signal, sys
import tlkit
from tlkit.cluster import is_chief
from tlkit.errors import TrainingError

def end_the_second(epoch, logs):
    if epoch == 1 and not is_chief("auto"):
        os.kill(os.getpid(), signal.SIGKILL)

try:
    tlkit.finetune(
        sys.argv[1], "image_cnn", image_size=32, batch_size=8, epochs=50, training={"patience": 50},
        callbacks=end_the_second, out=sys.argv[2], export=False,
    )
except TrainingError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_worker_that_is_lost_is_told_within_a_minute_and_the_best_model_stays(photos, tmp_path):
    chief, other = run_workers([["-c", LOST, str(photos), str(tmp_path / "run")]] * 2)
    assert other.code == -9
    assert chief.code == 0, chief.err
    assert "Another worker stopped, and this one cannot go on without it" in chief.out
    assert f"The best model so far is in {tmp_path / 'run'}." in chief.out
    assert (tmp_path / "run" / "model.keras").exists()


PLAIN_KERAS = """
import sys
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras, numpy as np
data = tf.data.Dataset.from_tensor_slices((np.ones((8, 3), "float32"), np.zeros(8, "int32"))).batch(4)
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
try:
    model.fit(data.with_options(options), epochs=1, verbose=0)
    model.evaluate(data.with_options(options), verbose=0)
except Exception as error:
    print("fails:", type(error).__name__, error)
else:
    print("works", keras.__version__)
"""


def test_plain_keras_still_fails_with_several_workers():
    """Where this fails, Keras's own `fit` and `evaluate` work: see what the message says."""
    for ended in run_workers([["-c", PLAIN_KERAS]] * 2, seconds=120.0):
        assert "fails:" in ended.out, (
            f"Keras has mended issue 20585 ({ended.out.strip()} {ended.err[-300:]}): drop `MultiWorkerFit` "
            "in tlkit/training/multi_worker.py, and this test, once pyproject.toml asks for that version."
        )
