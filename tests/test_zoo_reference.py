"""Naming a backbone: what each kind of reference becomes, and what is said of one that is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tlkit import zoo
from tlkit.errors import ConfigError, FetchError, UnknownNameError
from tlkit.zoo.reference import FORMS, parse_reference, pinned
from tlkit.zoo.source import FileSource, HubSource, KerasHubSource, UrlSource, WheelSource

BERT = Path(__file__).parent / "fixtures" / "text" / "bert"
HASH = "a" * 64


def test_a_name_is_its_entry():
    assert parse_reference("efficientnet_lite0") is zoo.get("efficientnet_lite0")


def test_a_wheel():
    source = parse_reference(f"wheel:some-package==1.0/data/model/#sha256={HASH}&size=12")
    assert source == WheelSource(
        kind="wheel", package="some-package", version="1.0", sha256=HASH, size=12, member="data/model/"
    )


@pytest.mark.parametrize(
    ("reference", "handle"),
    [
        ("hub:https://tfhub.dev/google/a/b/1", "https://tfhub.dev/google/a/b/1"),
        ("hub:google/a/b/1", "https://tfhub.dev/google/a/b/1"),
        (
            "kaggle:google/mobilenet-v2/tensorFlow2/feature-vector/2",
            "https://www.kaggle.com/models/google/mobilenet-v2/frameworks/tensorFlow2/variations/feature-vector/versions/2",
        ),
    ],
)
def test_a_handle(reference, handle):
    assert parse_reference(reference) == HubSource(kind="hub", handle=handle)


def test_the_output_and_the_hash_of_a_handle_follow_it():
    source = parse_reference(f"hub:google/a/1#output=default&sha256={HASH}")
    assert (source.output, source.sha256) == ("default", HASH)


@pytest.mark.parametrize(
    ("reference", "preset"),
    [
        ("kaggle:keras/bert/keras/bert_tiny/2", "kaggle://keras/bert/keras/bert_tiny/2"),
        ("kaggle://keras/bert/keras/bert_tiny", "kaggle://keras/bert/keras/bert_tiny"),
        ("hf:owner/model", "hf://owner/model"),
        ("hf://owner/model", "hf://owner/model"),
        ("keras_hub:bert_tiny_en_uncased", "bert_tiny_en_uncased"),
    ],
)
def test_a_preset(reference, preset):
    assert parse_reference(reference) == KerasHubSource(kind="keras_hub", preset=preset)


def test_a_file_on_the_web():
    source = parse_reference(f"url:https://example.org/m.zip#sha256={HASH}&member=m/&size=3")
    assert source == UrlSource(kind="url", url="https://example.org/m.zip", sha256=HASH, member="m/", size=3)


def test_a_path_is_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.keras").touch()
    (tmp_path / "b.tar.gz").touch()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "config.json").write_text(json.dumps({"registered_name": "keras_hub>ResNet"}))
    assert parse_reference("a.keras") == FileSource(kind="file", path=str(tmp_path / "a.keras"))
    assert parse_reference("b.tar.gz") == HubSource(kind="hub", handle=str(tmp_path / "b.tar.gz"))
    assert parse_reference("saved/") == HubSource(kind="hub", handle=str(tmp_path / "saved"))
    assert parse_reference("hub:saved") == parse_reference("saved")
    assert parse_reference("preset").preset == str(tmp_path / "preset")
    assert parse_reference(str(BERT)) == FileSource(kind="file", path=str(BERT))


def test_a_name_of_the_zoo_comes_before_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet50").mkdir()
    (tmp_path / "resnet50" / "saved_model.pb").touch()
    assert parse_reference("resnet50") is zoo.get("resnet50")
    assert parse_reference("./resnet50").kind == "hub"


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("", ConfigError, "A backbone needs a name"),
        ("efficentnet_lite0", UnknownNameError, "Did you mean 'efficientnet_lite0'.*wheel:…, hub:…"),
        ("whel:a==1/b", ConfigError, "Unknown kind of reference 'whel'.*Did you mean 'wheel'"),
        ("wheel:a==1/b", ConfigError, "not pinned: add #sha256=…"),
        ("wheel:a/b", ConfigError, "expected package==version/member"),
        (f"wheel:a==1/b#sha256={HASH[1:]}", ConfigError, "sha256: expected 64 digits.*received"),
        (f"wheel:a==1/b#md5={HASH}", ConfigError, "'md5=a*'. Allowed: sha256"),
        ("url:https://example.org/m", ConfigError, "not pinned"),
        ("url:http://example.org/m#sha256=" + HASH, ConfigError, "not https"),
        ("http://example.org/m", ConfigError, "only https://… is downloaded"),
        ("hub:http://example.org/m", ConfigError, "only https://… is downloaded"),
        ("https://example.org/m", ConfigError, "hub:https://example.org/m or url:https://example.org/m"),
        ("kaggle:a/b", ConfigError, "expected owner/model/framework/variation"),
        ("kaggle:a/b/pyTorch/c/1", ConfigError, "frameworks keras and tensorFlow2"),
        ("kaggle:a/b/tensorFlow2/c", ConfigError, "names no version"),
        ("hf:model", ConfigError, "expected owner/model"),
        ("kaggle:a/b/keras/c d", ConfigError, "expected owner/model/framework/variation"),
        ("hub:a b/c", ConfigError, "expected a handle without spaces"),
        ("hub:./nowhere", FetchError, "no such file or folder"),
        ("./nowhere", FetchError, "no such file or folder"),
        ("model.keras", FetchError, "no such file or folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, reference, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        parse_reference(reference)
    assert "\n" not in str(caught.value)


def test_a_folder_with_several_saved_models_asks_for_one(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    with pytest.raises(FetchError, match="holds 2 SavedModels: name the folder of one"):
        parse_reference(str(tmp_path))


def test_a_path_that_is_no_backbone_says_what_was_looked_for(tmp_path):
    with pytest.raises(FetchError, match=r"neither a saved_model.pb .* nor a config.json"):
        parse_reference(str(tmp_path))
    (tmp_path / "state.json").write_text('{"status": "complete"}')
    with pytest.raises(FetchError, match="is an earlier run"):
        parse_reference(str(tmp_path))
    (tmp_path / "x.txt").touch()
    with pytest.raises(FetchError, match=r"a file is a .keras or .h5 model"):
        parse_reference(str(tmp_path / "x.txt"))


def test_every_form_is_understood_and_shown_in_an_error():
    with pytest.raises(UnknownNameError) as caught:
        parse_reference("zzz")
    assert all(f"{prefix}:…" in str(caught.value) for prefix in FORMS)


def test_only_a_wheel_without_a_hash_is_pinned(monkeypatch):
    asked = []

    def pin(source):
        asked.append((source.package, source.version, source.member))
        return source.model_copy(update={"sha256": HASH, "size": 7})

    monkeypatch.setattr("tlkit.zoo.reference.pin_wheel", pin)
    given = [f"wheel:a==1/b#sha256={HASH}", "hub:a/b/1", "efficientnet_lite0"]
    assert [pinned(text) for text in given] == given
    assert pinned("wheel:a==1/b") == f"wheel:a==1/b#sha256={HASH}&size=7"
    assert asked == [("a", "1", "b")]


def test_parsing_loads_no_tensorflow():
    code = (
        "import sys; from tlkit.zoo.reference import parse_reference; parse_reference('hub:a/b/1'); "
        "print({'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
