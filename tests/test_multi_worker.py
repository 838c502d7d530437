"""Worker processes that share a run, over loopback: they do together what one process does.

All of it, what is slow, too, and the figures of what is compared: pytest -m "" tests/test_multi_worker.py
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from test_feature_cache_tasks import make_texts
from test_finetune_texts import BERT, animals, write_table

import tlkit
from tlkit.plans import Stage
from tlkit.training.compiling import compile_stage
from tlkit.training.multi_worker import WholeEpochs
from tlkit.training.pipelines import training_pipeline
from tlkit.training.trainable import Place

from conftest import make_pictures
from test_training import make_run
from worker_processes import Ended, run_workers, succeeded

TESTS = str(Path(__file__).parent)

# Three stages, over one device, two replicas or two workers: python -c … strategy file
STAGES = f"""
import json, sys
sys.path.insert(0, {TESTS!r})
name, file, *more = sys.argv[1:]
if name == "mirrored":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tlkit.devices import make_strategy
strategy = make_strategy(name)
from pathlib import Path
import keras, numpy as np
from test_training import make_examples, make_run, values
from tlkit.data import make_pipeline
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

def fit(run, stages, part="run"):
    watch = Watch()
    trained = train_stages(run, stages, Path(file).parent / (Path(file).stem + "-" + part), [watch])
    return run, trained, watch

def train(stages, of=lambda run: run, **options):
    run = of(make_run(**{{"n": 37, "n_validation": 5, "batch_size": 8, **options}}, strategy=strategy))
    return fit(run, stages)

# A rate of 1e-3: Adam divides small gradients by their size, which at high rates makes rounding visible.
def plan(epochs, **options):
    stages = (("head", "head"), ("top", 1), ("all", "all"))
    return [Stage(name, which, epochs, 1e-3, **options) for name, which in stages]

def answers(run, examples):
    (batch,) = make_pipeline(examples, run.preprocessing, global_batch_size=len(examples), training=False)
    return batch[1].numpy(), run.model(batch[0], training=False).numpy()

def accuracy(run, examples):
    targets, logits = answers(run, examples)
    return float(np.mean(np.argmax(logits, axis=1) == targets))

def save(report, model):
    np.savez(file, **{{path.replace("/", "|"): value for path, value in values(model).items()}})
    print(json.dumps(report))
"""

REPORT = """
def tell(run, trained, watch):
    held_out = run.dataset.splits["validation"]
    loss = float(np.mean(run.head.loss(*answers(run, held_out))))
    frozen = [record.frozen_unchanged for record in trained.records]
    by_hand = [loss, accuracy(run, held_out)]
    save({"losses": watch.losses, "epochs": watch.epochs, "by_hand": by_hand, "frozen": frozen}, run.model)
"""
PICTURES = """
tell(*train(plan(2)))
"""
TEXTS = """
from dataclasses import replace
from test_feature_cache_tasks import OFF, prepared
table, backbone = more
made = prepared(
    Path(table), backbone, cache=OFF, stages=("head", 1, "all"), dropout=0.0, strategy=name,
    training={"global_batch_size": 8, "learning_rate": 1e-3},
)
tell(*fit(made.trainable, [replace(stage, epochs=2, patience=None) for stage in made.stages]))
"""


def alone(script: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def together(script: str, folder: Path, *more: str) -> list[dict]:
    files = [str(folder / f"{name}.npz") for name in ("first", "second")]
    commands = [["-c", script, "multi_worker", file, *more] for file in files]
    return [json.loads(each.out.splitlines()[-1]) for each in succeeded(run_workers(commands))]


def weights_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


def assert_workers_agree(folder: Path) -> None:
    first, second = weights_of(folder, "first"), weights_of(folder, "second")
    assert first.keys() == second.keys()
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)


@pytest.fixture
def show(capsys):
    """Print figures past pytest, which else keeps them back."""

    def show_line(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end=" ")

    return show_line


def require_equal_training(script: str, folder: Path, show, *more: str) -> None:
    """Losses of every step and epoch, final weights and metrics: one device, two replicas, two workers."""
    one = alone(script, "cpu", str(folder / "cpu.npz"), *more)
    replicas = alone(script, "mirrored", str(folder / "mirrored.npz"), *more)
    first, second = together(script, folder, *more)
    expected = weights_of(folder, "cpu")
    assert len(one["losses"]) == 3 * 2 * 5
    assert len(set(np.round(one["losses"], 6))) > 20, "a loss that never moves would be equal, too"
    for what, other in (("mirrored", replicas), ("first", first), ("second", second)):
        of_steps = np.abs(np.divide(other["losses"], one["losses"]) - 1).max()
        weights = weights_of(folder, what)
        of_weights = max(np.abs(value - expected[path]).max() for path, value in weights.items())
        show(f"{what}: losses of 30 steps within {of_steps:.1e} of one device's, weights {of_weights:.1e}")
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-4)
        np.testing.assert_allclose(other["epochs"], one["epochs"], rtol=1e-4)
        for path, value in weights.items():
            np.testing.assert_allclose(value, expected[path], atol=1e-3, err_msg=f"{what} {path}")
        # What the last epoch's validation measured is what the model gives.
        np.testing.assert_allclose(other["epochs"][-1][2:], other["by_hand"], rtol=1e-5)
        assert other["frozen"] == [True] * 3
    assert_workers_agree(folder)


def test_two_workers_train_like_one_device_and_like_two_replicas_step_by_step(tmp_path, show):
    """37 examples in batches of 8: the last 5 split into 3 and 2, and so does the validation."""
    require_equal_training(STAGES + REPORT + PICTURES, tmp_path, show)


@pytest.fixture(scope="module")
def bert_without_dropout(tmp_path_factory) -> Path:
    folder = shutil.copytree(BERT, tmp_path_factory.mktemp("backbone") / "bert")
    config = json.loads((folder / "config.json").read_text())
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["text_cnn", "bert"])
def test_on_texts_of_many_lengths_they_do_so_too(backbone, bert_without_dropout, tmp_path, show):
    texts = make_texts()
    table = write_table(tmp_path / "classify.csv", text=texts, label=animals(texts))
    named = str(bert_without_dropout) if backbone == "bert" else backbone
    require_equal_training(STAGES + REPORT + TEXTS, tmp_path, show, str(table), named)


SPREAD = """
tested, report = make_examples(120, seed=2), []
for seed in (0, 1, 2):
    options = {"batch_norm": "train", "augment": "default", "dropout": 0.2, "seed": seed}
    made = make_run(n=90, batch_size=10, strategy=strategy, **options)
    run, *_ = fit(made, [Stage("all", "all", 5, 0.01)], f"seed{seed}")
    report.append(accuracy(run, tested))
save(report, run.model)
"""


@pytest.mark.slow
def test_with_dropout_and_augmentation_the_mean_test_accuracy_is_within_its_spread(tmp_path, show):
    """Each replica draws its own dropout masks, so the curves differ; the mean over seeds must not."""
    script = STAGES + SPREAD
    found = {name: alone(script, name, str(tmp_path / f"{name}.npz")) for name in ("cpu", "mirrored")}
    found["two workers"], second = together(script, tmp_path)
    assert second == found["two workers"]
    spread = max(np.std(accuracies, ddof=1) for accuracies in found.values())
    tolerance = max(spread, 1 / 120)  # one of the tested examples, where all seeds agree
    means = {name: np.mean(accuracies) for name, accuracies in found.items()}
    for name, accuracies in found.items():
        each = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
        show(f"{name}: mean test accuracy {means[name]:.3f} ({each}); spread of the seeds {spread:.3f}")
    assert max(means.values()) - min(means.values()) <= tolerance
    assert min(means.values()) > 0.8


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

    predictions, names = pd.read_csv(folder / "predictions.csv"), (folder / "labels.txt").read_text().split()
    with np.load(folder / "outputs.npz") as file:
        logits = dict(zip(file["ids"], file["outputs"].astype("float64"), strict=True))
    for split, rows in predictions.groupby("split"):
        of_rows = np.stack([logits[name] for name in rows["id"]])
        truth, guess = np.array([names.index(name) for name in rows["label"]]), of_rows.argmax(axis=1)
        shares = np.log(np.exp(of_rows).sum(axis=1)) - of_rows[np.arange(len(rows)), truth]
        metrics = result["metrics"][split]
        assert metrics["loss"] == pytest.approx(shares.mean(), rel=1e-5)
        assert metrics["accuracy"] == pytest.approx((truth == guess).mean())
        assert metrics["f1_macro"] == pytest.approx(f1_score(truth, guess, average="macro"))
    again, before = tlkit.load(folder).evaluate(), result["metrics"]["test"]
    for name in ("loss", "accuracy", "f1_macro", "auc"):
        assert again[name] == pytest.approx(before[name], rel=1e-4)
    # What was logged while it trained counted every held-out picture once, too.
    history = pd.read_csv(folder / "history.csv")
    best = result["stages"][-1]["best_value"]
    assert best == pytest.approx(history["val_accuracy"].max())
    assert result["metrics"]["validation"]["accuracy"] == pytest.approx(best)


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


UNEQUAL = """
import json, os, sys
from tlkit import devices
number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
devices._count_devices = lambda strategy: 1 + number
from tlkit.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_workers_with_different_numbers_of_devices_are_told_who_has_how_many(photos, tmp_path):
    words = ["finetune", "--data", str(photos), *SMALL, "--out", str(tmp_path / "run")]
    for ended in run_workers([["-c", UNEQUAL, *words]] * 2, seconds=60.0):
        assert ended.code == 2, ended.err
        assert re.search(r"and they differ: 1 CPU at 127.0.0.1:\d+, 2 CPU at 127.0.0.1:\d+\. Show", ended.err)
    assert not (tmp_path / "run").exists()


class StopAtSecondStep(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.stop_training = True


@pytest.mark.parametrize(("whole", "steps"), [(False, 2), (True, 5)])
def test_who_stops_in_the_middle_of_an_epoch_comes_to_its_end_where_others_take_part(whole, steps):
    run, counted = make_run(), []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: counted.append(batch))
    model = compile_stage(run, Stage("all", "all", 3, 0.01), None)
    batches = training_pipeline(run, Stage("all", "all", 3, 0.01), Place(0, 1, 0))
    callbacks = [*([WholeEpochs()] if whole else []), StopAtSecondStep(), count]
    model.fit(batches, epochs=3, steps_per_epoch=5, callbacks=callbacks, shuffle=False, verbose=0)
    assert len(counted) == steps


STOPS_ALONE = """
import sys
import keras, tlkit
from tlkit.cluster import is_chief

class StopAlone(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1 and not is_chief("auto"):
            self.model.stop_training = True

tlkit.finetune(
    sys.argv[1], "image_cnn", image_size=32, batch_size=4, epochs=5, callbacks=StopAlone(), plan="head",
    out=sys.argv[2], export=False,
)
"""


@pytest.mark.slow
def test_a_stage_that_one_worker_ends_ends_for_all_after_the_epoch(photos, tmp_path):
    succeeded(run_workers([["-c", STOPS_ALONE, str(photos), str(tmp_path / "run")]] * 2, seconds=120.0))
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 1


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
