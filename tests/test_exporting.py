"""An exported model takes raw files and answers like the run, or it does not appear at all."""

from __future__ import annotations

import functools
import io
import json
import resource
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from tlkit import zoo
from tlkit.errors import ExportMismatch, StorageError
from tlkit.exporting import export_saved_model
from tlkit.exporting.answers import name_answers
from tlkit.exporting.checking import _last_error, check_export
from tlkit.exporting.odd_pictures import FORMATS, add_odd_pictures
from tlkit.exporting.pictures import picture_interface
from tlkit.exporting.signatures import make_predict
from tlkit.heads import to_scores
from tlkit.preprocessing import ImagePreprocessing, sniff
from tlkit.zoo.entry import Scaling

PREPROCESSING = ImagePreprocessing(32, "stretch", Scaling(mean=(127.0,) * 3, std=(128.0,) * 3))
CLASSES = ["cat", "dog", "grüner Vogel", "fish", "bee", "ant", "fox"]


def make_file(seed: int, kind: str = "PNG", size: tuple[int, int] = (50, 40)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


FILES = [make_file(seed, "JPEG" if seed % 2 else "PNG") for seed in range(5)]


def make_model(n_outputs: int) -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x)))
    # Large weights, so that the answers depend on the picture.
    large = keras.initializers.RandomNormal(stddev=0.5)
    return keras.Model(inputs, keras.layers.Dense(n_outputs, kernel_initializer=large)(x))


def answers_of(model: keras.Model, task: Any, files: list[bytes]) -> np.ndarray:
    outputs = model.predict(PREPROCESSING.from_raw(tf.constant(files)), verbose=0)
    return np.array(to_scores(task, outputs))


def export(to: Path, task: Any, n_outputs: int, **options: Any) -> tuple[keras.Model, Any]:
    model = make_model(n_outputs)
    settings = {
        "preprocessing": PREPROCESSING,
        "objective": task,
        "classes": CLASSES[:n_outputs],
        "to_scores": functools.partial(to_scores, task),
        "entry": zoo.get("efficientnet_lite0"),
        "examples": FILES,
        "expected": answers_of(model, task, FILES),
    }
    return model, export_saved_model(model, to=to, **{**settings, **options})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Any]:
    return export(tmp_path_factory.mktemp("export") / "classifier" / "1", "classify", 7)


def load(report: Any) -> dict[str, Any]:
    loaded = tf.saved_model.load(str(report.path))
    signatures = dict(loaded.signatures)
    # The variables live as long as what was loaded does.
    signatures["serving_default"].keep = signatures["tensor"].keep = loaded
    return signatures


@pytest.fixture(scope="module")
def signatures(classifier: tuple[keras.Model, Any]) -> dict[str, Any]:
    return load(classifier[1])


def test_a_classifier_answers_with_scores_label_and_top_k(
    classifier: tuple[keras.Model, Any], signatures: dict[str, Any]
) -> None:
    model, _ = classifier
    answers = signatures["serving_default"](image_bytes=tf.constant(FILES))
    wanted = answers_of(model, "classify", FILES)
    np.testing.assert_allclose(answers["scores"], wanted, atol=1e-5)
    best_first = np.argsort(-wanted, axis=1)[:, :5]
    names = [[CLASSES[k] for k in row] for row in best_first]
    assert [[name.decode() for name in row] for row in answers["top_k_labels"].numpy()] == names
    assert [name.decode() for name in answers["label"].numpy()] == [row[0] for row in names]
    np.testing.assert_allclose(answers["top_k_scores"], np.take_along_axis(wanted, best_first, 1), atol=1e-5)
    assert len({row[0] for row in names}) > 1


def test_the_tensor_signature_takes_decoded_pictures(
    classifier: tuple[keras.Model, Any], signatures: dict[str, Any]
) -> None:
    model, _ = classifier
    pngs = FILES[::2]
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in pngs])
    answers = signatures["tensor"](image=tf.constant(pictures))
    np.testing.assert_allclose(answers["scores"], answers_of(model, "classify", pngs), atol=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches_are_answered(signatures: dict[str, Any], n: int) -> None:
    by_bytes = signatures["serving_default"](image_bytes=tf.constant(FILES[:n], tf.string))
    by_tensor = signatures["tensor"](image=tf.zeros((n, 20, 30, 3), tf.uint8))
    for answers in (by_bytes, by_tensor):
        shapes = {name: tuple(value.shape) for name, value in answers.items()}
        assert shapes == {"scores": (n, 7), "label": (n,), "top_k_labels": (n, 5), "top_k_scores": (n, 5)}


def test_a_refused_file_is_named_by_the_exported_model(signatures: dict[str, Any]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="is a TIFF"):
        signatures["serving_default"](image_bytes=tf.constant([FILES[0], make_file(0, "TIFF")]))


def test_labels_input_and_zoo_entry_travel_along(
    classifier: tuple[keras.Model, Any], signatures: dict[str, Any]
) -> None:
    assets = classifier[1].path / "assets"
    assert (assets / "labels.txt").read_text(encoding="utf-8").splitlines() == CLASSES
    described = json.loads((assets / "input.json").read_text(encoding="utf-8"))
    assert described["labels"] == CLASSES
    assert described["inside"]["image_size"] == 32
    assert "TIFF" in described["inputs"]["serving_default"]["image_bytes"]["refused"]
    for name, signature in signatures.items():
        assert set(described["outputs"][name]) == set(signature.structured_outputs)
        assert set(described["inputs"][name]) == set(signature.structured_input_signature[1])
    assert described["needs"] == {"modules": [], "ops": []}
    entry = yaml.safe_load((assets / "zoo_entry.yaml").read_text(encoding="utf-8"))
    assert zoo.ZooEntry.model_validate(entry) == zoo.get("efficientnet_lite0")


def test_the_report_says_what_was_compared(classifier: tuple[keras.Model, Any]) -> None:
    _, report = classifier
    assert report.check.examples >= 32
    assert set(report.check.formats) == {"as given", *FORMATS}
    assert report.check.formats["as given"] == len(FILES)
    assert set(report.check.differences) == {"serving_default", "tensor"}
    assert max(report.check.differences.values()) <= 1e-5
    assert report.check.run_difference <= 1e-5
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_export_does_not_depend_on_where_it_was_written(classifier: tuple[keras.Model, Any]) -> None:
    graph = (classifier[1].path / "saved_model.pb").read_bytes()
    assert str(classifier[1].path.parent).encode() not in graph
    assert b"tlkit-export-" not in graph


@pytest.mark.slow
def test_a_multilabel_model_without_its_files_is_checked_on_made_up_pictures(tmp_path: Path) -> None:
    model, report = export(tmp_path / "1", "multilabel", 3, examples=(), expected=None)
    assert report.check.formats == dict.fromkeys(FORMATS, 4)
    assert report.check.run_difference is None
    answers = load(report)["serving_default"](image_bytes=tf.constant(FILES))
    scores = answers_of(model, "multilabel", FILES)
    wanted = ["|".join(np.array(CLASSES[:3])[row > 0.5]) for row in scores]
    assert [label.decode() for label in answers["label"].numpy()] == wanted
    assert answers["top_k_scores"].shape == (len(FILES), 3)


def test_a_regressor_answers_with_values_and_replaces_an_earlier_export(tmp_path: Path) -> None:
    to = tmp_path / "1"
    to.mkdir()
    (to / "saved_model.pb").write_text("earlier")
    model, report = export(to, "regress", 1, classes=None, overwrite=True)
    answers = load(report)["serving_default"](image_bytes=tf.constant(FILES))
    assert set(answers) == {"value"}
    np.testing.assert_allclose(answers["value"], answers_of(model, "regress", FILES)[:, 0], rtol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_answers_have_names() -> None:
    scores = tf.constant([[0.6, 0.5, 0.9], [0.1, 0.2, 0.3]])
    several = name_answers(scores, "multilabel", ["a", "b", "c"])
    assert several["label"].numpy().tolist() == [b"a|c", b""]
    assert several["top_k_labels"].numpy().tolist() == [[b"c", b"a", b"b"], [b"c", b"b", b"a"]]
    assert name_answers(scores, "classify", ["a", "b", "c"])["label"].numpy().tolist() == [b"c", b"c"]
    assert name_answers(scores, "regress", ["x", "y", "z"])["value"].shape == (2, 3)
    assert name_answers(scores[:, 0], "regress", ["x"])["value"].shape == (2,)
    assert name_answers(scores[:, :1], "regress", ["x"])["value"].shape == (2,)


def test_a_difference_to_what_the_run_said_is_found(classifier: tuple[keras.Model, Any]) -> None:
    model, report = classifier
    expected = answers_of(model, "classify", FILES)
    expected[3, 2] += 2e-5
    predict = make_predict(model, functools.partial(to_scores, "classify"))
    interface = picture_interface(PREPROCESSING, predict, "classify", CLASSES, FILES)
    with pytest.raises(ExportMismatch, match=r"differently for example 3 \(as given\): by 2e-05"):
        check_export(report.path, interface, objective="classify", classes=CLASSES, expected=expected)


def test_a_broken_reload_is_one_line() -> None:
    stderr = "noise\nTraceback (most recent call last):\n  File x\nValueError: no such\n\n  tensor\n"
    assert _last_error(stderr) == "ValueError: no such tensor"
    assert _last_error("") == ""


def test_a_graph_that_was_exported_wrongly_is_found(tmp_path: Path) -> None:
    traced = []

    class Forgetful(ImagePreprocessing):
        """Adds something the first time it is traced, which is for the exported model."""

        def from_raw(self, raw: tf.Tensor) -> tf.Tensor:
            traced.append(raw)
            return super().from_raw(raw) + (0.01 if len(traced) == 1 else 0.0)

    wrong = Forgetful(PREPROCESSING.image_size, PREPROCESSING.resize, PREPROCESSING.scaling)
    with pytest.raises(ExportMismatch, match="differently for example"):
        export(tmp_path / "1", "classify", 7, preprocessing=wrong)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_an_export_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(StorageError, match="not empty"):
        export(tmp_path, "classify", 2)
    with pytest.raises(StorageError, match="did not write"):
        export(tmp_path, "classify", 2, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(StorageError, match="Cannot write"):
            export(tmp_path / "1", "classify", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_odd_formats_are_what_they_say() -> None:
    pairs = add_odd_pictures(FILES)
    assert [file for _, file in pairs[: len(FILES)]] == FILES
    kinds = {name: sniff(file) for name, file in pairs[len(FILES) :]}
    assert kinds == {
        "grey PNG": "PNG",
        "transparent PNG": "PNG",
        "CMYK JPEG": "JPEG",
        "rotated JPEG": "JPEG",
        "WebP": "WebP",
        "GIF": "GIF",
        "24-bit BMP": "BMP",
    }
    modes = {name: Image.open(io.BytesIO(file)).mode for name, file in pairs[len(FILES) :]}
    assert (modes["grey PNG"], modes["transparent PNG"], modes["CMYK JPEG"]) == ("L", "RGBA", "CMYK")
    assert len(pairs) == 32


def test_many_examples_get_each_odd_format_once() -> None:
    pairs = add_odd_pictures(FILES * 10)
    assert len(pairs) == 50 + len(FORMATS)
