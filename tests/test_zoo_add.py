"""Adding a backbone to one's own zoo: every kind of source becomes an entry that can be fine-tuned."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_keras_hub import keras_hub_model

from tlkit import zoo
from tlkit.backbones import load
from tlkit.errors import ConfigError, FetchError
from tlkit.freezing import group_layers
from tlkit.workflows.zoo_add import add_to_zoo, group_parameters
from tlkit.zoo.fetch import cached_path
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.reference import parse_reference
from tlkit.zoo.registry import read_zoo

from saved_models import (
    TextPreprocessor,
    save_reusable,
    save_with_operation,
    small_text_encoder,
    write_vocabulary,
)
from small_models import own_model

BERT = Path(__file__).parent / "fixtures" / "text" / "bert"


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_model().save("mine.keras")
    return tmp_path


def registered(name):
    """The entry, as it was read from the file again."""
    return next(entry for entry in read_zoo(Path("model_zoo.yaml")) if entry.name == name)


def test_a_keras_file_becomes_an_entry(tmp_path):
    added = add_to_zoo("my_net", "mine.keras", license="our own", citation="us", scaling="unit")
    entry = registered("my_net")
    assert added.entry == entry == zoo.get("my_net")
    assert added.file == tmp_path / "model_zoo.yaml"
    assert entry.source.sha256 == hash_of(Path("mine.keras"))
    assert (entry.license, entry.citation, entry.modality) == ("our own", "us", "image")
    assert entry.input.scaling.std == (255, 255, 255)
    assert (entry.input.image_size, entry.input.min_image_size) == (32, 32)
    assert list(added.groups) == list(entry.layer_groups)
    assert sum(added.groups.values()) == entry.params == load("my_net").model.count_params()
    assert not entry.verified


def test_a_hugging_face_folder_becomes_an_entry():
    add_to_zoo("my_bert", str(BERT))
    entry = registered("my_bert")
    assert (entry.modality, entry.family) == ("text", "bert")
    assert entry.license_source is None  # that of the family is of other weights
    assert entry.source.sha256 == hash_of(BERT)
    backbone = load("my_bert")
    assert entry.params == backbone.model.count_params()
    assert [group.name for group in group_layers(backbone)] == list(entry.layer_groups)


def test_an_entry_of_the_zoo_can_be_copied(monkeypatch):
    add_to_zoo("my_text", "text_mlp", license="ours")
    assert registered("my_text").source.kind == "none"
    assert zoo.get("my_text").license == "ours"


def test_a_licence_of_ones_own_does_not_keep_the_source_of_another():
    path = add_to_zoo("my_net", "mine.keras", license="theirs").file
    path.write_text(path.read_text().replace("license: theirs", "license: theirs\n    license_source: there"))
    assert zoo.get("my_net").license_source == "there"
    assert add_to_zoo("copied", "my_net").entry.license_source == "there"
    assert add_to_zoo("mine", "my_net", license="ours").entry.license_source is None


@pytest.mark.real
def test_a_wheel_becomes_an_entry_and_its_hash_is_worked_out():
    source = zoo.get("minilm_l6").source
    add_to_zoo("my_minilm", f"wheel:{source.package}=={source.version}/{source.member}")
    entry = registered("my_minilm")
    known = zoo.get("minilm_l6")
    assert entry.source == known.source
    assert (entry.params, entry.layer_groups) == (known.params, known.layer_groups)
    tokens = {
        "token_ids": np.array([[101, 102]]),
        "padding_mask": np.ones((1, 2)),
        "segment_ids": np.zeros((1, 2)),
    }
    ours, theirs = (load(name).model(tokens)["sequence"] for name in ("my_minilm", "minilm_l6"))
    np.testing.assert_array_equal(ours, theirs)


def test_a_dry_run_writes_nothing(tmp_path):
    added = add_to_zoo("my_net", "mine.keras", dry_run=True)
    assert added.entry.name == "my_net"
    assert added.file is None
    assert not (tmp_path / "model_zoo.yaml").exists()


def test_the_file_that_the_environment_names_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_ZOO", str(tmp_path / "team" / "zoo.yaml"))
    with pytest.raises(FetchError):
        add_to_zoo("my_net", "nowhere.keras")
    assert not (tmp_path / "team" / "zoo.yaml").exists()
    assert add_to_zoo("my_net", "mine.keras").file == tmp_path / "team" / "zoo.yaml"
    assert zoo.get("my_net")


def test_nothing_is_overwritten_unless_asked():
    add_to_zoo("my_net", "mine.keras")
    with pytest.raises(ConfigError, match="has an entry 'my_net' already"):
        add_to_zoo("my_net", "mine.keras")
    with pytest.raises(ConfigError, match="'resnet50' is an entry of tlkit's own"):
        add_to_zoo("resnet50", "mine.keras")
    add_to_zoo("my_net", "mine.keras", license="new", overwrite=True)
    assert registered("my_net").license == "new"
    add_to_zoo("resnet50", "mine.keras", overwrite=True)
    assert zoo.get("resnet50").family == "own"


def test_mistakes_are_found_before_anything_is_loaded(monkeypatch, tmp_path):
    for name in ("", "a b", "../x", "-x", "hub", "a:b"):
        with pytest.raises(ConfigError, match="cannot be a zoo name"):
            add_to_zoo(name, "nowhere")
    with pytest.raises(ConfigError, match="it begins references such as url:https://…#sha256=…"):
        add_to_zoo("url", "nowhere")
    with pytest.raises(ConfigError, match="'elpv' is the name of sample data: choose another name"):
        add_to_zoo("elpv", "nowhere", overwrite=True)
    with pytest.raises(ConfigError, match="scaling: unknown scaling 'x'"):
        add_to_zoo("a", "nowhere", scaling="x")
    Path("model_zoo.yaml").write_text("entries: {x: {params: many}}")
    with pytest.raises(ConfigError, match="model_zoo.yaml: x.params|x.modality"):
        add_to_zoo("a", "nowhere")


def test_in_a_checkout_the_shipped_file_is_not_added_to():
    from tlkit.zoo.registry import zoo_file

    shutil.copy(zoo_file(), "model_zoo.yaml")
    with pytest.raises(ConfigError, match="is tlkit's own. Name a file of your own in TLKIT_ZOO"):
        add_to_zoo("my_net", "mine.keras")


def test_the_layer_to_take_features_from_can_be_named():
    add_to_zoo("lower", "mine.keras", output="unit1_add")
    assert load("lower").model.output.shape == (None, 32, 32, 4)
    with pytest.raises(ConfigError, match="output: for .keras files and SavedModels"):
        add_to_zoo("preset", "keras_hub:bert_tiny_en_uncased", output="x")


def test_groups_have_the_parameters_of_the_model():
    backbone = load("mobilenet_v3_small", weights=False, image_size=32)
    groups = group_parameters(backbone)
    assert sum(groups.values()) == backbone.entry.params
    assert list(groups) == list(backbone.entry.layer_groups)


def test_a_saved_model_becomes_an_entry(tmp_path):
    model = own_model(head=False)
    model.export(tmp_path / "exported", verbose=False)
    add_to_zoo("exported_net", str(tmp_path / "exported"), scaling="raw")
    entry = registered("exported_net")
    assert entry.source.kind == "hub"
    assert entry.source.sha256 is not None
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(load("exported_net").model(x), model(x, training=False), atol=1e-5)


def test_the_random_state_of_the_user_s_model_does_not_matter(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(4, 3, name="only")(inputs))
    keras.Model(inputs, x).save(tmp_path / "dropout.keras")
    added = add_to_zoo("dropout", str(tmp_path / "dropout.keras"))
    assert added.groups == {"stem": 112}


def test_a_saved_model_for_texts_is_added_with_what_makes_its_tokens(tmp_path):
    save_reusable(small_text_encoder(), tmp_path / "encoder")
    words = write_vocabulary(tmp_path / "words.txt", ["good", "bad", "film"])
    tf.saved_model.save(TextPreprocessor(words), str(tmp_path / "before"))
    assert add_to_zoo("tokens", "encoder").entry.modality == "other"
    added = add_to_zoo("texts", "encoder", preprocessing="before")
    assert added.entry.modality == "text"
    assert registered("texts").input.preprocessing.sha256 == hash_of(tmp_path / "before")
    assert load("texts").model({"text": tf.constant(["good film"])})["pooled"].shape == (1, 8)
    with pytest.raises(ConfigError, match="both must be SavedModels"):
        add_to_zoo("wrong", "mine.keras", preprocessing="before")


def test_a_saved_model_that_reads_files_is_added_only_if_it_is_trusted(tmp_path):
    (tmp_path / "secret").write_text("s")
    save_with_operation(tmp_path / "reader", lambda: tf.io.read_file(str(tmp_path / "secret")))
    with pytest.raises(FetchError, match="ReadFile"):
        add_to_zoo("reader", "reader")
    assert not (tmp_path / "model_zoo.yaml").exists()
    assert add_to_zoo("reader", "reader", trust=True).entry.name == "reader"
    assert "trust" not in (tmp_path / "model_zoo.yaml").read_text()


def test_a_keras_hub_folder_becomes_an_entry(tmp_path):
    keras_hub_model("ResNetBackbone").save_to_preset("preset")
    with pytest.raises(ConfigError, match="does not say how pictures are scaled"):
        add_to_zoo("my_resnet", "preset")
    added = add_to_zoo("my_resnet", "preset", scaling="imagenet", image_size=64)
    entry = registered("my_resnet")
    assert entry.source.preset == str(tmp_path / "preset")
    assert entry.input.scaling.mean == (123.675, 116.28, 103.53)
    assert sum(added.groups.values()) == entry.params
    assert load("my_resnet").model.input.shape == (None, 64, 64, 3)


def test_what_came_from_the_web_is_described_by_what_it_is(tmp_path, monkeypatch):
    """The download itself has tests of its own; here the file is as if it had been fetched."""
    file = tmp_path / "mine.keras"
    source = f"url:https://example.org/mine.keras#sha256={hash_of(file)}"
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "cache"))
    kept = cached_path(parse_reference(source))
    kept.parent.mkdir(parents=True)
    shutil.copy(file, kept)
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    add_to_zoo("from_web", source)
    assert registered("from_web").source == parse_reference(source)
    assert load("from_web").entry.params == load("mine.keras").entry.params
