"""Whole runs on small pictures: what a run leaves behind, and what can be done with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from PIL import Image

import tlkit
from tlkit.errors import ConfigError, DataError, StorageError
from tlkit.results import RunFolder
from tlkit.workflows.objects import as_augment, as_callbacks

from conftest import make_pictures

SETTINGS = {
    "backbone": "image_cnn",  # few layers: most of a short run's time goes into making graphs of them
    "image_size": 32,
    "batch_size": 12,
    "epochs": 1,
    "plan": "head",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    return tlkit.finetune(photos, out=tmp_path_factory.mktemp("runs") / "first", **SETTINGS)


def test_a_run_leaves_everything_behind_that_its_folder_promises(run):
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "config.yaml",
        "zoo_entry.yaml",
        "labels.txt",
        "manifest.csv",
        "data_report.csv",
        "history.csv",
        "predictions.csv",
        "outputs.npz",
        "model.keras",
        "stages",
        "logs",
        "export",
        "state.json",
        "result.json",
    }
    assert not list(run.path.rglob("*partial*"))
    result = json.loads((run.path / "result.json").read_text())
    assert set(result) == {"metrics", "stages", "resumed", "seconds", "environment"}
    assert set(result["metrics"]) == {"validation", "test"}
    assert result["stages"][0]["frozen_unchanged"] is True
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["preprocessing"]["image_size"] == 32
    assert config["training"]["global_batch_size"] == 12


def test_a_finished_run_answers_in_a_notebook(run):
    assert 0 <= run.metrics["accuracy"] <= 1
    assert list(run.history["stage"]) == ["head"]
    assert list(run.stages["name"]) == ["head"]
    assert run.plot().axes
    assert run.confusion_matrix().axes
    assert "<table>" in run._repr_html_()
    assert "accuracy" in run._repr_html_()
    assert repr(run) == f"Run(path={run.path!r})"


def test_the_saved_outputs_are_those_of_the_saved_model(run):
    stored = np.load(run.path / "outputs.npz")
    manifest = pd.read_csv(run.path / "manifest.csv").set_index("id")
    name = stored["ids"][0]
    raw = Path(manifest.loc[name, "path"]).read_bytes()
    outputs = run.model(run.preprocessing.from_raw(tf.constant([raw])))
    np.testing.assert_allclose(outputs[0], stored["outputs"][0], rtol=1e-4, atol=1e-5)


def test_evaluating_a_run_again_gives_the_metrics_of_its_result(run):
    again = tlkit.load(run.path).evaluate()
    assert again["accuracy"] == run.metrics["accuracy"]
    assert again["loss"] == pytest.approx(run.metrics["loss"], rel=1e-4)


def test_other_data_can_be_evaluated_even_when_a_class_is_missing(run, photos, tmp_path):
    only = tmp_path / "other"
    only.mkdir()
    classes = sorted(path for path in photos.iterdir() if path.is_dir())
    (only / classes[0].name).symlink_to(classes[0])
    assert "accuracy" in run.evaluate(only)


def test_a_label_that_the_model_does_not_know_is_an_error(run, tmp_path):
    folder = make_pictures(tmp_path / "other")
    next(path for path in folder.iterdir()).rename(folder / "unheard_of")
    with pytest.raises(DataError, match="unheard_of"):
        run.evaluate(folder)


def test_predictions_have_the_documented_keys_and_name_what_is_refused(run, photos, tmp_path):
    good = next(photos.rglob("*.png"))
    bad = tmp_path / "notes.txt"
    bad.write_text("not a picture")
    fine, refused = run.predict([good, bad], top=2)
    assert set(fine) == {"input", "label", "score", "scores", "top_k"}
    assert len(fine["top_k"]) == 2
    assert fine["top_k"][0] == {"label": fine["label"], "score": fine["score"]}
    assert sum(fine["scores"].values()) == pytest.approx(1.0, abs=1e-5)
    assert set(refused) == {"input", "error"}


def test_a_path_bytes_and_an_array_of_one_picture_get_the_same_answer(run, photos):
    path = next(photos.rglob("*.png"))
    by_path = run.predict(path)
    by_bytes = run.predict(path.read_bytes())
    by_array = run.predict(np.asarray(Image.open(path).convert("RGB")))
    assert by_path["scores"] == by_bytes["scores"] == by_array["scores"]


def test_a_folder_an_array_of_pictures_and_an_iterator_get_an_answer_each(run, photos):
    paths = sorted(photos.rglob("*.png"))[:3]
    folder = paths[0].parent
    names = [answer["input"] for answer in run.predict(str(folder))]
    assert names == [str(path) for path in sorted(folder.iterdir())]
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    wanted = [answer["scores"] for answer in run.predict(paths)]
    assert [answer["scores"] for answer in run.predict(pictures)] == wanted
    assert [answer["scores"] for answer in run.predict(tf.constant(pictures))] == wanted
    assert [answer["scores"] for answer in run.predict(path for path in paths)] == wanted
    assert [answer["scores"] for answer in tlkit.predict(run, paths[0])] == wanted[:1]


@pytest.mark.parametrize("wrong", [None, Image.new("RGB", (8, 8)), 3.5, [None]])
def test_what_is_no_picture_is_an_error_that_says_what_is_one(run, wrong):
    with pytest.raises(DataError, match="expected a path, encoded bytes, or an array"):
        run.predict(wrong)


def test_an_exported_model_takes_raw_bytes(run, photos):
    path = next(photos.rglob("*.png"))
    served = tf.saved_model.load(str(run.path / "export")).signatures["serving_default"]
    answer = served(image_bytes=tf.constant([path.read_bytes()]))
    assert answer["label"].numpy()[0].decode() == run.predict(path)["label"]


def test_plain_keras_opens_the_model(run):
    script = f"import keras; m = keras.models.load_model({str(run.folder.model)!r}); print(m.output_shape)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(None, 3)"


def test_a_run_can_start_from_an_earlier_runs_backbone(run, photos, tmp_path):
    second = tlkit.finetune(photos, **{**SETTINGS, "backbone": run}, out=tmp_path / "second", export=False)
    assert second.config.backbone == str(run.path)
    for old, new in zip(run.backbone_model.weights, second.backbone_model.weights, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())


def test_a_folder_that_is_not_empty_is_left_alone(run, photos):
    before = sorted(path.name for path in run.path.iterdir())
    with pytest.raises(StorageError, match="not empty"):
        tlkit.finetune(photos, out=run.path, **SETTINGS)
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_python_objects_are_used_and_named_in_the_config(photos, tmp_path):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(sorted(logs))

    def brighter(pictures):
        seen.append("augmented")
        return tf.cast(pictures, tf.float32) * 1.1

    run = tlkit.finetune(
        photos,
        **SETTINGS,
        out=tmp_path / "run",
        export=False,
        head=keras.Sequential([keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
        augment=brighter,
        callbacks=[Watch()],
    )
    assert "augmented" in seen
    assert {"top2", "val_top2"} <= set(seen[-1])
    assert set(run.config.python) == {"head", "loss", "metrics", "augment", "callbacks"}
    assert run.model.output_shape == (None, 3)


def test_one_callback_and_functions_are_callbacks_too():
    seen = []
    stop = keras.callbacks.TerminateOnNaN()
    assert as_callbacks(stop) == (stop,)
    first, second = as_callbacks([stop, lambda epoch, logs: seen.append((epoch, logs))])
    second.on_epoch_end(3, {"loss": 1.0})
    assert first is stop
    assert seen == [(3, {"loss": 1.0})]
    with pytest.raises(ConfigError, match="received 'early'"):
        as_callbacks(["early"])


def test_a_list_of_layers_and_functions_is_one_augmentation():
    pictures = np.arange(2 * 4 * 4 * 3, dtype="float32").reshape(2, 4, 4, 3)
    augment = as_augment([keras.layers.Rescaling(2.0), lambda batch: batch + 1])
    np.testing.assert_allclose(augment(pictures), pictures * 2 + 1)
    assert as_augment(["random_flip", {"random_rotation": {"factor": 0.1}}]) is None
    with pytest.raises(ConfigError, match="not both"):
        as_augment(["random_flip", keras.layers.RandomFlip()])


def test_arrays_and_frames_are_data_too(tmp_path, photos):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (24, 20, 20, 3), dtype="uint8")
    labels = np.array(["yes", "no"] * 12)
    by_array = tlkit.finetune((pictures, labels), **SETTINGS, out=tmp_path / "arrays", export=False)
    assert by_array.classes == ("no", "yes")
    with pytest.raises(ConfigError, match="data in memory"):
        by_array.evaluate()
    paths = sorted(photos.rglob("*.png"))
    frame = pd.DataFrame({"path": map(str, paths), "label": [float(len(path.stem)) for path in paths]})
    frame["label"] = np.linspace(0, 100, len(frame))
    by_frame = tlkit.finetune(frame, **SETTINGS, task="regress", out=tmp_path / "frame", export=False)
    assert {"mae", "rmse", "r2"} <= set(by_frame.metrics)
    assert isinstance(by_frame.predict(paths[0])["value"], float)


def test_a_config_error_leaves_nothing_behind(photos, tmp_path):
    with pytest.raises(tlkit.TlkitError, match="Did you mean 'mobilenet_v3_small'"):
        tlkit.finetune(photos, **{**SETTINGS, "backbone": "mobilenet_v3_smal"}, out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^augment: .* must keep the shape"):
        tlkit.finetune(photos, **SETTINGS, augment=lambda batch: batch[:, :8], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_cannot_say_that_something_is_trusted(run, photos, tmp_path):
    (tmp_path / "config.yaml").write_text("trust: true\n")
    with pytest.raises(ConfigError, match="trust cannot be given by a file"):
        tlkit.finetune(photos, config=str(tmp_path / "config.yaml"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    theirs = shutil.copytree(run.path, tmp_path / "theirs")
    config = (theirs / "config.yaml").read_text()
    assert "trust: false" in config
    (theirs / "config.yaml").write_text(config.replace("trust: false", "trust: true"))
    with pytest.raises(ConfigError, match="trust cannot be given by a file"):
        tlkit.load(theirs)


MIRRORED = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import tlkit
pictures = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype="uint8")
run = tlkit.finetune(
    (pictures, np.arange(24) % 3), sys.argv[1], strategy="mirrored", image_size=32, batch_size=8, epochs=1,
    plan="head", out=sys.argv[2],
)
held = run.predict(pictures[:3])
read = tlkit.load(run.path).predict(pictures[:3])
assert len(held) == len(read) == 3
for one, other in zip(held, read):
    assert all(abs(one["scores"][name] - other["scores"][name]) < 1e-5 for name in run.classes)
assert (run.path / "export" / "saved_model.pb").exists()
"""


def test_a_run_on_two_replicas_is_evaluated_exported_and_predicts_like_any_other(tmp_path):
    command = [sys.executable, "-c", MIRRORED, SETTINGS["backbone"], str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "backbone", ["image_cnn", pytest.param("mobilenet_v3_small", marks=pytest.mark.slow)]
)
def test_two_deterministic_runs_are_bit_identical(backbone, photos, tmp_path):
    for name in ("a", "b"):
        command(
            photos, tmp_path / name, "--deterministic", "plan=head_then_all", "export=false",
            f"backbone={backbone}",
        ).check_returncode()  # fmt: skip
    a, b = (np.load(tmp_path / name / "outputs.npz") for name in ("a", "b"))
    np.testing.assert_array_equal(a["outputs"], b["outputs"])
    assert (tmp_path / "a" / "history.csv").read_text() == (tmp_path / "b" / "history.csv").read_text()


def test_ctrl_c_saves_the_best_model_so_far_and_says_how_to_use_it(photos, tmp_path):
    out = tmp_path / "run"
    # A test run in the background has Ctrl-C switched off, and a process that it starts would inherit that.
    listen = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listen}; from tlkit.cli import main; sys.exit(main())"
    _, _, _, *options = arguments(photos, out, "training.epochs=500")
    checkpoint = out / "stages" / "head.weights.h5"
    deadline = time.monotonic() + 240
    with subprocess.Popen(
        [sys.executable, "-c", program, *options], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not checkpoint.exists() and time.monotonic() < deadline:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate(timeout=400)
        finally:
            process.kill()  # whatever happened: a process left behind is blamed on a later test
    assert process.returncode == 130
    assert f"tlkit predict {out}" in messages
    assert "Traceback" not in messages
    assert RunFolder(out).read_state()["status"] == "interrupted"
    assert not (out / "result.json").exists()
    assert "label" in tlkit.load(out).predict(next(photos.rglob("*.png")))


def arguments(photos, out, *more):
    fixed = [
        "--data",
        str(photos),
        "--out",
        str(out),
        "--backbone",
        "image_cnn",
        "--image-size",
        "32",
    ]
    return [
        sys.executable,
        "-m",
        "tlkit",
        "finetune",
        *fixed,
        "--epochs",
        "1",
        "--plan",
        "head",
        "weights=none",
        *more,
    ]


def command(photos, out, *more):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        arguments(photos, out, *more), capture_output=True, text=True, check=False, env=environment
    )
