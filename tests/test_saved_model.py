"""SavedModels as backbones: adopted, frozen, trained, regularised, saved and refused as they should be."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit import zoo
from tlkit.backbones import Backbone, load, saved_model_fetch, saved_model_layers
from tlkit.backbones.saved_model import describe_saved_model, load_saved_model
from tlkit.backbones.saved_model_fetch import fetch_saved_model
from tlkit.backbones.saved_model_layer import SavedModelLayer, saved_model_objects
from tlkit.backbones.saved_model_open import open_saved_model
from tlkit.backbones.saved_model_operations import is_pure
from tlkit.errors import ConfigError, FetchError
from tlkit.plans import Stage
from tlkit.training.freeze import apply_freeze, check_unchanged, frozen_weights, hash_weights
from tlkit.training.optimizing.optimizer import OPTIMIZERS
from tlkit.training.training_model import TrainingModel
from tlkit.workflows.fits import require_trainable
from tlkit.zoo.archive import unpack
from tlkit.zoo.entry import ImageInput, TensorInput, TextInput
from tlkit.zoo.libraries import hub_folder
from tlkit.zoo.source import HubSource

from saved_models import (
    L2,
    TextModule,
    TextPreprocessor,
    fit,
    pictures,
    save_reusable,
    save_signature,
    save_tf1,
    save_with_operation,
    small_cnn,
    small_text_encoder,
    with_head,
    write_vocabulary,
)

KINDS = {"reusable": save_reusable, "signature": save_signature}


def source(path: Path, **fields: Any) -> HubSource:
    return HubSource(kind="hub", handle=str(path), **fields)


def backbone_of(path: Path, **options: Any) -> Backbone:
    return load_saved_model(describe_saved_model(source(path), "small"), **options)


def backbone_of_output(path: Path, output: str) -> Backbone:
    return load_saved_model(describe_saved_model(source(path, output=output), "small"))


def answers_of(backbone: Backbone, x: Any) -> np.ndarray:
    return np.asarray(backbone.model(x, training=False))


@pytest.fixture(scope="module")
def cnn() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = small_cnn()
    for weight in model.weights:  # statistics that are not those of a new BatchNorm
        weight.assign(np.random.default_rng(0).normal(0.3, 0.2, weight.shape) ** 2 + 0.05)
    return model


@pytest.fixture(scope="module")
def folders(cnn: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved_models")
    saved = {name: save(cnn, folder / name) for name, save in KINDS.items()}
    saved["plain"] = save_reusable(cnn, folder / "plain", lists=False)
    saved["tf1"] = save_tf1(folder / "tf1")
    return saved


@pytest.mark.parametrize("kind", ["reusable", "signature", "plain"])
def test_answers_are_those_of_the_model_that_was_saved(kind, cnn, folders):
    backbone = backbone_of(folders[kind])
    np.testing.assert_allclose(answers_of(backbone, pictures()), cnn(pictures(), training=False), atol=1e-5)
    assert list(backbone.features) == ["map"]
    assert backbone.features["map"].shape[-1] == 8
    assert backbone.model.count_params() == cnn.count_params() == backbone.entry.params


@pytest.mark.parametrize("kind", ["reusable", "signature", "plain"])
def test_gradients_reach_every_trainable_variable(kind, cnn, folders):
    model = backbone_of(folders[kind]).model
    assert len(model.trainable_variables) == len(cnn.trainable_variables) == 6
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(pictures(), training=True)))
    assert all(each is not None for each in tape.gradient(loss, [v.value for v in model.trainable_variables]))


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("plain", "adamw"), *((kind, optimizer) for kind in KINDS for optimizer in OPTIMIZERS)],
)
def test_fine_tuning_lowers_the_loss_and_moves_the_saved_models_own_variables(kind, optimizer, folders):
    backbone = backbone_of(folders[kind])
    model, _, _ = with_head(backbone, batch_norm="train")
    layer = saved_model_layers(model)[0]
    before = [each.numpy() for each in layer.opened.endpoint.trainable]
    rate = 1e-3 if optimizer == "lion" else 1e-2
    losses = fit(model, pictures(), np.arange(8) % 2, optimizer, rate, epochs=8)
    assert losses[-1] < losses[0]
    after = layer.opened.endpoint.trainable
    assert all(not np.array_equal(one, other.numpy()) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ["reusable", "signature"])
def test_a_frozen_saved_model_stays_bit_identical(kind, folders):
    model, groups, stage = with_head(backbone_of(folders[kind]), train="head")
    frozen = frozen_weights(groups, stage)
    before = hash_weights(frozen)
    assert len(before) == 10
    fit(model, pictures(), np.arange(8) % 2)
    check_unchanged(before, frozen, "stage")
    layer = saved_model_layers(model)[0]
    assert {id(each.value) for each in layer.weights} == {
        id(each) for each in layer.opened.endpoint.variables
    }
    assert hash_weights(layer.weights) == {name: before[name] for name in hash_weights(layer.weights)}


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_batch_norm_of_a_reusable_one_moves_only_where_it_is_trained(batch_norm, folders):
    model, groups, stage = with_head(backbone_of(folders["reusable"]), batch_norm=batch_norm)
    layer = saved_model_layers(model)[0]
    norm = layer.batch_norm
    assert len(norm.weights) == 8
    before = [each.numpy() for each in norm.weights]
    others = [each.numpy() for each in layer.adopted]
    fit(model, pictures(), np.arange(8) % 2)
    moved = [not np.array_equal(one, other.numpy()) for one, other in zip(before, norm.weights, strict=True)]
    assert all(moved) if batch_norm == "train" else not any(moved)
    assert all(not np.array_equal(one, two.numpy()) for one, two in zip(others, layer.adopted, strict=True))
    assert len(frozen_weights(groups, stage, batch_norm)) == (8 if batch_norm == "frozen" else 0)


def test_batch_norm_does_not_move_while_the_layer_is_evaluated(folders):
    model = backbone_of(folders["reusable"]).model
    before = [each.numpy() for each in model.weights]
    model(pictures(), training=False)
    model.trainable = False
    model(pictures(), training=True)
    for one, other in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(one, other.numpy())


def test_one_that_was_saved_for_training_alone_is_refused(cnn, tmp_path):
    path = save_reusable(cnn, tmp_path / "training", trainings=[True])
    with pytest.raises(ConfigError, match="training=True alone: .*neither be kept frozen nor evaluated"):
        describe_saved_model(source(path), "training")


def test_one_that_was_saved_for_training_answers_by_its_signature(cnn, tmp_path):
    backbone = backbone_of(save_reusable(cnn, tmp_path / "both", trainings=[True], signature=True))
    before = [each.numpy() for each in backbone.model.weights]
    np.testing.assert_allclose(answers_of(backbone, pictures()), cnn(pictures(), training=False), atol=1e-5)
    backbone.model(pictures(), training=True)
    for one, other in zip(before, backbone.model.weights, strict=True):
        np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.parametrize("kind", ["call", "signature"])
def test_one_whose_every_call_moves_its_batch_norm_is_refused(kind, cnn, tmp_path):
    module = tf.Module()
    module.held = [each.value for each in cnn.variables]
    call = tf.function(lambda x: {"output": cnn(x, training=True)})
    concrete = call.get_concrete_function(tf.TensorSpec((None, 16, 16, 3), tf.float32))
    if kind == "call":
        module.__call__ = call
    tf.saved_model.save(
        module, str(tmp_path / "moving"), signatures=concrete if kind == "signature" else None
    )
    with pytest.raises(
        ConfigError, match=r"changes its own variables whenever it is called \(AssignVariableOp\).*frozen"
    ):
        describe_saved_model(source(tmp_path / "moving"), "moving")


def test_l2_terms_are_counted_once_and_only_while_trained(cnn, tmp_path):
    kernels = [cnn.get_layer("block1_conv").kernel, cnn.get_layer("block2_conv").kernel]
    backbone = backbone_of(save_reusable(cnn, tmp_path / "l2", l2=kernels))
    expected = sum(L2 * float(np.sum(np.square(each.numpy()))) for each in kernels)
    model, groups, _ = with_head(backbone)
    model(pictures())
    model(pictures())  # called again: not counted again
    assert sum(float(each) for each in model.losses) == pytest.approx(expected, rel=1e-6)
    twice = keras.Input((16, 16, 3))
    both = keras.Model(twice, backbone.model(backbone.model(twice)[:, :1, :1, :3] + twice))
    assert sum(float(each) for each in both.losses) == pytest.approx(expected, rel=1e-6)
    training = TrainingModel(model.input, model.output)
    training.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    total = training.evaluate(pictures(), np.arange(8) % 2, verbose=0)
    logits = model(pictures())
    plain = float(
        keras.ops.mean(keras.losses.sparse_categorical_crossentropy(np.arange(8) % 2, logits, True))
    )
    assert total == pytest.approx(plain + expected, rel=1e-4)
    apply_freeze(model, groups, Stage("head", "head", 1, 1e-2))
    assert sum(float(each) for each in model.losses) == 0.0


def test_an_l2_term_of_several_variables_is_counted_once_as_long_as_any_is_trained(cnn, tmp_path):
    scale, kernel = cnn.get_layer("block1_bn").gamma, cnn.get_layer("block1_conv").kernel
    backbone = backbone_of(save_reusable(cnn, tmp_path / "l2", l2=[[scale, kernel], scale]))
    of_scale, of_kernel = (L2 * float(np.sum(np.square(each.numpy()))) for each in (scale, kernel))
    model, groups, stage = with_head(backbone, batch_norm="train")

    def total():
        return sum(float(each) for each in model.losses)

    assert total() == pytest.approx(2 * of_scale + of_kernel, rel=1e-6)
    apply_freeze(model, groups, stage, "frozen")  # the scale is frozen, the kernel is not
    assert total() == pytest.approx(of_scale + of_kernel, rel=1e-6)
    apply_freeze(model, groups, Stage("head", "head", 1, 1e-2))
    assert total() == 0.0


def test_an_l2_term_of_a_variable_that_no_output_uses_is_not_counted(cnn, tmp_path):
    unused = keras.Variable(np.ones(3, "float32"))
    backbone = backbone_of(save_reusable(cnn, tmp_path / "l2", l2=[unused]))
    assert sum(float(each) for each in backbone.model.losses) == 0.0


def test_dropout_is_active_only_in_training(tmp_path):
    inputs = keras.Input((8,))
    saved = keras.Model(inputs, keras.layers.Dropout(0.5)(keras.layers.Dense(64)(inputs)))
    backbone = backbone_of(save_reusable(saved, tmp_path / "dropout"))
    assert isinstance(backbone.entry.input, TensorInput)
    x = {next(iter(backbone.entry.input.shapes)): tf.ones((2, 8))}
    output = next(iter(backbone.features))
    quiet, again = (backbone.model(x, training=False)[output] for _ in range(2))
    np.testing.assert_array_equal(quiet, again)
    assert float(tf.reduce_mean(tf.cast(backbone.model(x, training=True)[output] == 0, tf.float32))) > 0.2


def test_weights_travel_in_a_weights_file(folders, tmp_path):
    one, other = (backbone_of(folders["reusable"]).model for _ in range(2))
    for weight in one.weights:
        weight.assign(weight + 1)
    one.save_weights(tmp_path / "all.weights.h5")
    other.load_weights(tmp_path / "all.weights.h5")
    np.testing.assert_allclose(one(pictures()), other(pictures()), atol=1e-6)


def test_a_keras_file_opens_again_beside_its_saved_model_and_nowhere_else(folders, tmp_path):
    backbone = backbone_of(folders["reusable"])
    backbone.model.trainable_weights[0].assign_add(tf.ones(backbone.model.trainable_weights[0].shape))
    backbone.model.save(tmp_path / "model.keras")
    with pytest.raises(TypeError, match="Could not locate class 'SavedModelLayer'"):
        keras.saving.load_model(tmp_path / "model.keras")
    layer = saved_model_layers(backbone.model)[0]
    (tmp_path / "run").mkdir()
    layer.opened.folder.rename(tmp_path / "run" / layer.name)
    objects = saved_model_objects(tmp_path / "run")
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects=objects)
    np.testing.assert_allclose(again(pictures()), backbone.model(pictures()), atol=1e-6)
    assert isinstance(saved_model_layers(again)[0], SavedModelLayer)
    (tmp_path / "run" / layer.name / "variables" / "more").write_text("changed")
    with pytest.raises(FetchError, match="is another one, or was damaged"):
        keras.saving.load_model(tmp_path / "model.keras", custom_objects=objects)


def test_what_is_described(folders):
    entry = describe_saved_model(source(folders["reusable"]), "small")
    assert entry.modality == "image"
    assert isinstance(entry.input, ImageInput)
    assert (entry.input.image_size, entry.input.min_image_size) == (16, 16)
    assert entry.input.scaling.std == (255.0, 255.0, 255.0)
    assert entry.layer_groups == {"saved_model": "saved_model"}
    assert len(entry.source.sha256) == 64
    with pytest.raises(ConfigError, match="takes 16 pixels only"):
        load_saved_model(entry, image_size=32)
    other = entry.model_copy(update={"source": source(folders["reusable"], sha256="0" * 64)})
    with pytest.raises(FetchError, match="sha256"):
        load_saved_model(other)


def test_pictures_of_any_size(tmp_path):
    backbone = backbone_of(save_signature(small_cnn(None), tmp_path / "any"), image_size=24)
    assert backbone.entry.input.image_size == 224
    assert backbone.model(pictures(2, 24)).shape == (2, 6, 6, 8)


def test_an_output_of_several_is_named(tmp_path):
    inputs = keras.Input((8, 8, 3))
    outputs = {name: keras.layers.Conv2D(4, 1, name=name)(inputs) for name in ("low", "high")}
    path = save_reusable(keras.Model(inputs, outputs), tmp_path / "several")
    with pytest.raises(ConfigError, match="gives several outputs: .*low.*output=NAME"):
        describe_saved_model(source(path), "several")
    backbone = load_saved_model(describe_saved_model(source(path, output="high"), "several"))
    assert backbone.model.output.shape == (None, 8, 8, 4)
    assert len(backbone.model.trainable_weights) == 2  # the other output's are not trained
    assert len(backbone.model.weights) == 4


def test_vectors_of_pictures_are_a_backbone(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(inputs)))
    backbone = backbone_of(save_signature(model, tmp_path / "vectors"))
    assert list(backbone.features) == ["pooled"]
    model, _, _ = with_head(backbone)
    losses = fit(model, pictures(8, 8), np.arange(8) % 2)
    assert losses[-1] < losses[0]


def test_a_fixed_batch_size_is_refused(tmp_path):
    model = tf.Module()
    model.weight = tf.Variable(tf.ones((3, 2)))
    model.__call__ = tf.function(
        lambda x: tf.reduce_mean(x, (1, 2)) @ model.weight,
        input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)],
    )
    tf.saved_model.save(model, str(tmp_path / "one"))
    with pytest.raises(ConfigError, match="batches of 1 only"):
        describe_saved_model(source(tmp_path / "one"), "one")


def test_a_saved_model_without_calls_is_refused(tmp_path):
    empty = tf.Module()
    empty.weight = tf.Variable(1.0)
    tf.saved_model.save(empty, str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="neither be called nor has it a signature"):
        describe_saved_model(source(tmp_path / "empty"), "empty")


def test_a_saved_model_that_computes_with_constants_gives_features(tmp_path):
    constant = tf.Module()
    constant.__call__ = tf.function(
        lambda x: tf.concat([x, 1 - x], -1), input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32)]
    )
    tf.saved_model.save(constant, str(tmp_path / "constant"))
    entry = describe_saved_model(source(tmp_path / "constant"), "constant")
    assert entry.params == 0
    assert any("cannot be fine-tuned" in note for note in entry.notes)
    backbone = load_saved_model(entry)
    np.testing.assert_allclose(answers_of(backbone, pictures())[..., 3:], 1 - pictures(), atol=1e-6)
    model, groups, _ = with_head(backbone, train="head")
    assert [(group.name, group.weights) for group in groups] == [("saved_model", ())]
    assert groups[0].cut is not None
    losses = fit(model, pictures(), np.arange(8) % 2)
    assert losses[-1] < losses[0]
    with pytest.raises(
        ConfigError, match="a SavedModel that cannot be fine-tuned: .* no trainable variables"
    ):
        require_trainable(groups, [Stage("all", "all", 1, 1e-3)], entry, 10)


@pytest.mark.parametrize("called", [True, False], ids=["callable", "signature"])
def test_variables_that_no_output_depends_on_are_not_trained(called, tmp_path):
    """Weight decay would move them, and so would a regularisation loss."""
    module = tf.Module()
    module.kernel = tf.Variable(tf.fill((3, 4), 0.1), name="kernel")
    module.spare = tf.Variable(tf.ones((4,)), name="spare")
    module.outside = tf.Variable(tf.ones((4,)), name="outside")

    @tf.function
    def both(x):
        return x @ module.kernel, x @ module.kernel + module.spare

    @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, "pictures")])
    def call(pictures):
        features, other = both(tf.reduce_mean(pictures, (1, 2)))
        return {"features": features, "other": other, "third": features * module.outside}

    if called:
        module.__call__ = call
    tf.saved_model.save(module, str(tmp_path / "module"), signatures=None if called else call)
    backbone = backbone_of_output(tmp_path / "module", "features")
    model, _, _ = with_head(backbone)
    (layer,) = saved_model_layers(backbone.model)
    assert [weight.name for weight in layer.trainable_weights] == ["kernel"]
    before = {weight.name: np.asarray(weight) for weight in layer.weights}
    assert set(before) == {"kernel", "spare", "outside"}
    fit(model, pictures(), np.arange(8) % 2)
    moved = {weight.name for weight in layer.weights if np.any(np.asarray(weight) != before[weight.name])}
    assert moved == {"kernel"}


def test_the_format_of_tensorflow_1_gives_features_and_says_that_it_cannot_be_tuned(folders):
    entry = describe_saved_model(source(folders["tf1"]), "old")
    assert any("cannot be fine-tuned" in note for note in entry.notes)
    backbone = load_saved_model(entry)
    expected = np.repeat(pictures().mean(axis=(1, 2)).sum(axis=1, keepdims=True), 5, axis=1)
    np.testing.assert_allclose(answers_of(backbone, pictures()), expected, atol=1e-5)
    assert backbone.model.trainable_weights == []
    assert not saved_model_layers(backbone.model)[0].fine_tunes
    model, groups, stage = with_head(backbone, train="head")
    before = hash_weights(frozen_weights(groups, stage))
    losses = fit(model, pictures(), np.arange(8) % 2)
    assert losses[-1] < losses[0]
    check_unchanged(before, frozen_weights(groups, stage), "stage")


# -- where they come from


def test_an_archive_is_unpacked_once(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folders["reusable"], "model")
    unpacked = []

    def counted(path: Path, to: Path, **limits: int) -> None:
        unpacked.append(path)
        unpack(path, to, **limits)

    monkeypatch.setattr(saved_model_fetch, "unpack", counted)
    found = fetch_saved_model(source(archive))
    assert found.is_relative_to(tmp_path / "home")
    assert found == fetch_saved_model(source(archive))
    assert backbone_of(archive).entry.modality == "image"
    assert unpacked == [archive]
    (found / "saved_model.pb").write_bytes(b"damaged")
    assert fetch_saved_model(source(archive)) == found
    assert unpacked == [archive, archive]
    assert zoo.hash_of(found) == zoo.hash_of(folders["reusable"])


def test_a_handle_needs_a_network_at_first_use_only(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    handle = HubSource(kind="hub", handle="https://tfhub.dev/google/nothing/1")
    with pytest.raises(FetchError, match="TLKIT_OFFLINE forbids"):
        fetch_saved_model(handle)
    theirs = tmp_path / "theirs" / hashlib.sha1(handle.handle.encode()).hexdigest()
    shutil.copytree(folders["reusable"], theirs)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(theirs.parent))
    kept = fetch_saved_model(handle)
    assert kept == hub_folder(handle.handle)
    shutil.rmtree(theirs)
    assert fetch_saved_model(handle) == kept
    assert zoo.hash_of(kept) == zoo.hash_of(folders["reusable"])


def test_a_damaged_download_is_fetched_again(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TLKIT_OFFLINE", raising=False)
    downloads = []

    def download(handle, folder, progress):
        downloads.append(handle)
        return Path(shutil.copytree(folders["reusable"], folder / "unpacked"))

    monkeypatch.setattr("tlkit.backbones.saved_model_fetch._downloaded", download)
    digest = zoo.hash_of(folders["reusable"])
    for fields in ({}, {"sha256": digest}):
        source = HubSource(kind="hub", handle="https://tfhub.dev/some/model/1", **fields)
        kept = fetch_saved_model(source)
        (kept / "saved_model.pb").write_bytes(b"damaged")
        assert fetch_saved_model(source) == kept
        assert zoo.hash_of(kept) == digest
    assert len(downloads) == 3, "the second source is the first one's download, with its hash"
    (kept / "saved_model.pb").write_bytes(b"damaged")
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="model/1 is damaged in the cache folder .*TLKIT_OFFLINE forbids"):
        fetch_saved_model(source)
    monkeypatch.delenv("TLKIT_OFFLINE")
    other = source.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(FetchError, match=f"does not have the sha256 .*0000\\) but {digest}"):
        fetch_saved_model(other)


def test_a_handle_is_resolved_by_tensorflow_hub_into_the_cache_folder(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    script = (
        "import sys, tensorflow_hub\n"
        "from tensorflow_hub import compressed_module_resolver as resolver\n"
        "archive = open(sys.argv[1], 'rb')\n"
        "resolver.HttpCompressedFileResolver._call_urlopen = lambda self, request: archive\n"
        "from tlkit.backbones.saved_model_fetch import fetch_saved_model\n"
        "from tlkit.zoo.source import HubSource\n"
        "print(fetch_saved_model(HubSource(kind='hub', handle='https://tfhub.dev/some/model/1')))\n"
    )
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folders["reusable"], ".")
    done = subprocess.run(
        [sys.executable, "-c", script, str(archive)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home" / "hub")


def test_a_place_without_a_saved_model_is_named(tmp_path):
    with pytest.raises(FetchError, match="There is no SavedModel at"):
        fetch_saved_model(HubSource(kind="hub", handle=str(tmp_path / "nowhere")))
    with pytest.raises(FetchError, match="no saved_model.pb"):
        fetch_saved_model(source(tmp_path))


def test_an_archive_without_a_saved_model_is_named_itself(tmp_path):
    (tmp_path / "text").write_text("no model")
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "text", "a/b/text")
    with pytest.raises(FetchError, match=f"^{re.escape(str(archive))} holds no SavedModel"):
        fetch_saved_model(source(archive))


# -- what is refused


def _read(path: Path) -> Callable[[], Any]:
    return lambda: tf.io.read_file(str(path))


OPERATIONS: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "ReadFile": _read,
    "WriteFile": lambda path: lambda: tf.raw_ops.WriteFile(filename=str(path), contents="x"),
    "MatchingFiles": lambda path: lambda: tf.io.matching_files(str(path)),
    "DatasetFromGraph": lambda path: (
        lambda: tf.raw_ops.DatasetCardinality(
            input_dataset=tf.raw_ops.DatasetFromGraph(graph_def=tf.strings.as_string(tf.random.uniform(())))
        )
    ),
    "EagerPyFunc": lambda path: lambda: tf.py_function(lambda: 1.0, [], tf.float32),
    "PyFunc": lambda path: lambda: tf.numpy_function(lambda: np.float32(1), [], tf.float32),
    "TextLineDataset": lambda path: lambda: tf.data.TextLineDataset(str(path)).reduce(0, lambda n, _: n + 1),
    "TFRecordDataset": lambda path: lambda: tf.data.TFRecordDataset(str(path)).reduce(0, lambda n, _: n + 1),
    "SaveV2": lambda path: (
        lambda: tf.raw_ops.SaveV2(
            prefix=str(path), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.ones(())]
        )
    ),
    "RestoreV2": lambda path: (
        lambda: tf.raw_ops.RestoreV2(
            prefix=str(path), tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
        )
    ),
    "PrintV2 to a file": lambda path: lambda: tf.print("x", output_stream=f"file://{path}"),
    "DatasetToTFRecord": lambda path: (
        lambda: tf.raw_ops.DatasetToTFRecord(
            input_dataset=tf.data.Dataset.from_tensors("x")._variant_tensor,
            filename=str(path),
            compression_type="",
        )
    ),
    "WriteSummary": lambda path: lambda: _write_summary(path),
    "DebugIdentityV2": lambda path: (
        lambda: tf.raw_ops.DebugIdentityV2(
            input=tf.ones(()), tfdbg_context_id="1", op_name="x", debug_urls=[f"file://{path}"]
        )
    ),
    # Of these nobody said that they were dangerous; they are not known to be harmless, which is enough.
    "ImmutableConst": lambda path: (
        lambda: tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=(), memory_region_name=str(path))
    ),
    "Empty": lambda path: lambda: tf.raw_ops.Empty(shape=[4], dtype=tf.float32),
    "Timestamp": lambda path: tf.timestamp,
    "Abort": lambda path: tf.raw_ops.Abort,
}


def _write_summary(path: Path) -> tf.Tensor:
    writer = tf.raw_ops.SummaryWriter()
    tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir=str(path), max_queue=1, flush_millis=1, filename_suffix=""
    )
    tf.raw_ops.WriteSummary(writer=writer, step=0, tensor=1.0, tag="x", summary_metadata="")
    return tf.ones(())


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_that_do_more_than_compute_are_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    path = save_with_operation(tmp_path / "hostile", OPERATIONS[name](tmp_path / "file"))
    with pytest.raises(FetchError, match=f"was refused: it holds (.*, )?{name}, .*--trust") as caught:
        open_saved_model(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "file").exists()
    assert open_saved_model(path, trust=True).fine_tunes
    open_saved_model(path)  # trusted by its hash from now on


def test_operations_inside_a_branch_of_a_called_function_are_found(tmp_path):
    @tf.function
    def inner() -> tf.Tensor:
        return tf.cond(tf.random.uniform(()) > 2, lambda: tf.io.read_file("/etc/hostname"), lambda: "")

    path = save_with_operation(tmp_path / "nested", inner)
    with pytest.raises(FetchError, match="it holds ReadFile,"):
        open_saved_model(path)


@pytest.mark.parametrize("inside", ["branch", "loop", "map"])
def test_an_operation_that_is_not_known_is_refused_however_deep_it_is(inside, tmp_path):
    @tf.function
    def innermost(number: tf.Tensor) -> tf.Tensor:
        return number + tf.raw_ops.Empty(shape=[], dtype=tf.float32)

    calls: dict[str, Callable[[], Any]] = {
        "branch": lambda: tf.cond(tf.random.uniform(()) > 2, lambda: innermost(1.0), lambda: 0.0),
        "loop": lambda: tf.while_loop(lambda n: n < 3, lambda n: (innermost(n),), (0.0,)),
        "map": lambda: tf.map_fn(innermost, tf.ones(3)),
    }
    with pytest.raises(FetchError, match="it holds Empty, which tlkit does not know"):
        open_saved_model(save_with_operation(tmp_path / "deep", tf.function(calls[inside])))


PURE: dict[str, Callable[[], Any]] = {
    "TensorListPushBack": lambda: tf.raw_ops.TensorListPushBack(
        input_handle=tf.raw_ops.EmptyTensorList(
            element_shape=tf.constant([], tf.int32), max_num_elements=2, element_dtype=tf.float32
        ),
        tensor=tf.ones(()),
    ),
    "loops": lambda: tf.scan(lambda total, each: total + each, tf.ones(3)),
    "pictures": lambda: tf.image.resize(
        tf.cast(
            tf.io.decode_image(tf.io.encode_png(tf.ones((4, 4, 3), tf.uint8)), expand_animations=False),
            "float32",
        ),
        (2, 2),
        antialias=True,
    ),
    "strings": lambda: (
        tf.strings.unicode_decode(
            tf.strings.split(tf.strings.regex_replace(["a b"], "b", "ä")).values, "UTF-8"
        ).values
    ),
    "random numbers": lambda: (
        tf.random.stateless_uniform((2,), (1, 2)) + tf.random.normal((2,)) + tf.random.shuffle(tf.ones(2))
    ),
    "matrices": lambda: tf.signal.rfft2d(tf.linalg.inv(tf.eye(4))),
    "records": lambda: tf.io.parse_example([b""], {"a": tf.io.VarLenFeature(tf.float32)})["a"].values,
    "a line for the log": lambda: tf.print("x"),
}


@pytest.mark.parametrize("name", PURE)
def test_operations_that_only_compute_need_no_trust(name, tmp_path):
    assert open_saved_model(save_with_operation(tmp_path / "pure", PURE[name])).fine_tunes


def test_no_operation_that_reaches_outside_is_taken_for_pure():
    outside = re.compile(
        r"File(?!name|spec)|PyFunc|Dataset|Iterator|Write|^Save|^Restore|^Load|Debug|Rpc|Remote|Collective|"
        r"^Send|^Recv|Reader|Queue|Session|Host|Empty$|Inplace|Immutable|Abort|Print|Proto|SummaryWriter|Custom"
    )
    pure = [name for name in dir(tf.raw_ops) if is_pure(name)]
    assert len(pure) > 900
    # TensorArrayWrite writes to its own list.
    assert not [name for name in pure if outside.search(name) and not name.startswith("TensorArrayWrite")]


def test_a_table_filled_from_a_file_that_is_no_asset_is_refused(tmp_path):
    vocabulary = write_vocabulary(tmp_path / "words.txt", ["a", "b"])

    def fill() -> tf.Operation:
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        return tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=str(vocabulary), key_index=-2, value_index=-1
        )

    with pytest.raises(FetchError, match="InitializeTableFromTextFileV2 of a file that is no asset"):
        open_saved_model(save_with_operation(tmp_path / "table", fill))


def test_an_asset_outside_the_saved_model_is_refused(tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    tf.saved_model.save(TextModule(write_vocabulary(tmp_path / "vocab.txt", ["a", "b"])), str(tmp_path / "m"))
    proto = saved_model_pb2.SavedModel.FromString((tmp_path / "m" / "saved_model.pb").read_bytes())
    proto.meta_graphs[0].asset_file_def[0].filename = "../../secret"
    (tmp_path / "m" / "saved_model.pb").write_bytes(proto.SerializeToString())
    with pytest.raises(FetchError, match="an asset outside its folder"):
        open_saved_model(tmp_path / "m")


def test_a_damaged_saved_model_is_one_line(folders, tmp_path):
    import shutil

    shutil.copytree(folders["reusable"], tmp_path / "damaged")
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"\xff\xffnot a proto")
    with pytest.raises(FetchError, match="damaged holds a damaged SavedModel: Error parsing") as caught:
        open_saved_model(tmp_path / "damaged")
    assert "\n" not in str(caught.value)
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(FetchError, match="damaged holds a damaged SavedModel: there is no graph in it"):
        open_saved_model(tmp_path / "damaged")
    shutil.copytree(folders["reusable"], tmp_path / "empty")
    next((tmp_path / "empty" / "variables").glob("*.index")).unlink()
    with pytest.raises(FetchError, match="cannot be loaded"):
        open_saved_model(tmp_path / "empty")
    shutil.copytree(folders["reusable"], tmp_path / "cut")
    data = next((tmp_path / "cut" / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(FetchError, match="cut cannot be loaded"):
        open_saved_model(tmp_path / "cut")


# -- texts


WORDS = ["the", "a", "cat", "dog", "sat", "ran", "good", "bad"]


@pytest.fixture(scope="module")
def text_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("text_models")
    vocabulary = write_vocabulary(folder / "words.txt", WORDS)
    tf.saved_model.save(TextModule(vocabulary), str(folder / "strings"))
    tf.saved_model.save(TextPreprocessor(vocabulary), str(folder / "before"))
    keras.utils.set_random_seed(3)
    save_reusable(small_text_encoder(), folder / "encoder")
    return {name: folder / name for name in ("strings", "before", "encoder")}


def text_entry(folders: dict[str, Path]) -> Any:
    """The encoder with its preprocessing."""
    entry = describe_saved_model(source(folders["encoder"]), "encoder")
    takes = TextInput.model_validate(
        {
            "sequence_length": 12,
            "tokenizer": {"kind": "strings"},
            "preprocessing": {"kind": "hub", "handle": str(folders["before"])},
        }
    )
    return entry.model_copy(update={"modality": "text", "input": takes})


def test_an_encoder_of_strings(text_folders):
    entry = describe_saved_model(source(text_folders["strings"]), "strings")
    assert entry.modality == "text"
    assert entry.input.tokenizer.kind == "strings"
    backbone = load_saved_model(entry)
    assert list(backbone.features) == ["pooled"]
    texts = tf.constant(["the cat sat", "", "unknown words"])
    expected = tf.saved_model.load(str(text_folders["strings"]))(texts)
    np.testing.assert_allclose(backbone.model({"text": texts})["pooled"], expected, atol=1e-6)
    assert len(backbone.model.trainable_weights) == 1


def test_an_encoder_with_its_preprocessing(text_folders):
    backbone = load_saved_model(text_entry(text_folders))
    assert set(backbone.features) == {"sequence", "pooled", "mask"}
    assert backbone.entry.input.preprocessing.sha256 is not None
    texts = tf.constant(["the cat sat", "a dog"])
    tokens = tf.saved_model.load(str(text_folders["before"]))(texts)
    expected = tf.saved_model.load(str(text_folders["encoder"]))(tokens, training=False)
    given = backbone.model({"text": texts})
    np.testing.assert_allclose(given["sequence"], expected["sequence_output"], atol=1e-6)
    np.testing.assert_allclose(given["pooled"], expected["pooled_output"], atol=1e-6)
    np.testing.assert_array_equal(given["mask"], tokens["input_mask"])


def test_without_the_pooler_its_weights_are_not_trained(text_folders):
    whole = load_saved_model(text_entry(text_folders))
    bare = whole.for_head(False)
    assert set(bare.features) == {"sequence", "mask"}
    assert len(whole.model.trainable_weights) - len(bare.model.trainable_weights) == 2


def test_tokens_without_a_vocabulary_are_other_tensors(text_folders):
    entry = describe_saved_model(source(text_folders["encoder"]), "encoder")
    assert entry.modality == "other"
    assert set(entry.input.shapes) == {"input_word_ids", "input_mask"}
    backbone = load_saved_model(entry)
    assert set(backbone.model.output) == {"sequence_output", "pooled_output"}


def test_tokens_with_a_vocabulary_are_for_tlkits_own_tokenizer(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    encoder = small_text_encoder(len(pieces))
    path = save_reusable(encoder, tmp_path / "encoder")
    (path / "assets").mkdir(exist_ok=True)
    write_vocabulary(path / "assets" / "vocab.txt", pieces)
    entry = describe_saved_model(source(path), "encoder")
    assert entry.modality == "text"
    assert entry.input.tokenizer.kind == "wordpiece"
    backbone = load(entry, sequence_length=8)
    ids = tf.constant([[2, 4, 6, 3, 0]])
    mask = tf.constant([[1, 1, 1, 1, 0]])
    expected = encoder({"input_word_ids": ids, "input_mask": mask})
    given = backbone.model({"token_ids": ids, "padding_mask": mask})
    np.testing.assert_allclose(given["sequence"], expected["sequence_output"], atol=1e-6)
