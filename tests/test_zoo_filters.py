"""Choosing entries, and finding what is on this machine without loading anything."""

import json

import pytest

from tlkit import zoo
from tlkit.errors import ConfigError
from tlkit.zoo.filters import parse_count, select
from tlkit.zoo.libraries import own_preset
from tlkit.zoo.presence import kept_at, size_of, works_offline


def names(**filters):
    return {entry.name for entry in select(zoo.entries(), **filters)}


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    for name in ("TLKIT_HOME", "KERAS_HOME", "KAGGLEHUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_without_a_filter_everything_is_there():
    assert names() == {entry.name for entry in zoo.entries()}


def test_every_filter_narrows():
    small = names(modalities={"image"}, max_params=4_000_000, license="apache", source="wheel")
    assert small == {"efficientnet_lite0"}
    assert "minilm_l6" not in names(modalities={"image"})
    assert "efficientnet_lite0" not in names(min_params=3_413_025)
    assert "efficientnet_lite0" in names(min_params=3_413_024, max_params=3_413_024)
    assert names(license="APACHE-2.0") == names(license="apache-2.0")


def test_a_mirror_counts_as_a_source():
    entry = zoo.get("resnet50").model_copy(update={"mirrors": (zoo.get("minilm_l6").source,)})
    assert select([entry], source="wheel") == (entry,)


def test_what_was_never_fetched_does_not_work_offline_but_what_has_no_weights_does():
    assert names(cached=True) == set()
    assert names(offline=True) == {entry.name for entry in zoo.entries() if entry.source.kind == "none"}


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", {"resnet50"}),
        ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", {"resnet50_v2"}),
        ("mobilenet_1_0_224_tf_no_top.h5", {"mobilenet"}),
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", {"mobilenet_v2"}),
        ("weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", {"mobilenet_v3_small"}),
        ("efficientnetv2-b0_notop.h5", {"efficientnet_v2_b0"}),
        ("resnet50_weights_tf_dim_ordering_tf_kernels.h5", set()),
        ("mobilenet_1_0_128_tf_no_top.h5", set()),
    ],
)
def test_the_weights_that_keras_keeps_are_known_by_their_names(tmp_path, file, found):
    (tmp_path / "KERAS_HOME" / "models").mkdir(parents=True)
    (tmp_path / "KERAS_HOME" / "models" / file).touch()
    assert names(cached=True) == found


def kaggle_version(folder, number, *files):
    """A version of a preset in kagglehub's cache: these files have arrived."""
    for name in files:
        mark = folder / ".complete" / number / f"{name}.complete"
        for path in (folder / number / name, mark):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    return folder / number


def test_the_presets_that_keras_hub_keeps_are_known_by_their_names(tmp_path):
    folder = tmp_path / "KAGGLEHUB_CACHE" / "models" / "keras" / "bert" / "keras" / "bert_tiny_en_uncased"
    kaggle_version(folder, "9", "config.json", "tokenizer.json", "assets/tokenizer/vocabulary.txt")
    assert names(cached=True) == set(), "a download that broke off before the weights"
    (folder / "9" / "model.weights.h5").write_text("the beginning")
    assert names(cached=True) == set(), "or in the middle of them"
    newest = kaggle_version(folder, "9", "model.weights.h5")
    assert names(cached=True) == {"bert_tiny_en_uncased"}
    kaggle_version(folder, "8", "config.json", "model.weights.h5")
    entry = zoo.get("bert_tiny_en_uncased")
    address = "kaggle://keras/bert/keras/bert_tiny_en_uncased"
    for preset in (address, f"{address}/9"):
        source = entry.source.model_copy(update={"preset": preset})
        assert kept_at(entry.model_copy(update={"source": source})) == newest
    other = entry.source.model_copy(update={"preset": f"{address}/2"})
    assert not works_offline(entry.model_copy(update={"source": other}))
    newest = kaggle_version(folder, "10", "config.json", "model.weights.h5")
    assert kept_at(entry) == newest, "versions are numbers"


def test_a_preset_of_hugging_face_is_known_when_all_of_it_is_there(tmp_path):
    repository = tmp_path / "HF_HUB_CACHE" / "models--me--tiny"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert own_preset("hf://me/tiny") is None
    (snapshot / "config.json").write_text("{}")
    assert own_preset("hf://me/tiny") is None
    index = {"weight_map": {"/a": ["model_0.weights.h5"], "/b": "model_1.weights.h5"}}
    (snapshot / "model.weights.json").write_text(json.dumps(index))
    (snapshot / "model_0.weights.h5").touch()
    assert own_preset("hf://me/tiny") is None, "a part is missing"
    (snapshot / "model_1.weights.h5").touch()
    assert own_preset("hf://me/tiny") == snapshot
    (snapshot / "model.weights.json").write_text("[1")
    assert own_preset("hf://me/tiny") is None
    (snapshot / "model.safetensors").touch()
    assert own_preset("hf://me/tiny") == snapshot


def test_what_is_there_has_a_size(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    assert (size_of(tmp_path / "a"), size_of(tmp_path / "a" / "x")) == (5, 5)


@pytest.mark.parametrize(
    ("text", "count"),
    [("5M", 5_000_000), ("5,000,000", 5_000_000), ("1.5b", 1_500_000_000), ("300K", 300_000), ("12", 12)],
)
def test_counts_are_read_as_people_write_them(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "many", "5MM", "-3", "5G"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ConfigError, match="not a number of parameters"):
        parse_count(text)
