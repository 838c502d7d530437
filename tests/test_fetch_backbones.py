"""What Keras and KerasHub download, in tlkit's cache folder and on a machine without a network."""

import os
import shutil
import socket
from pathlib import Path

import h5py
import keras
import keras_hub
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils

from tlkit import zoo
from tlkit.backbones import describe, fetch_backbone, load, source_folder
from tlkit.cli import main
from tlkit.errors import ConfigError, FetchError
from tlkit.zoo.fetch import fetch_weights
from tlkit.zoo.filters import select
from tlkit.zoo.pruning import prune
from tlkit.zoo.source import KerasHubSource

SIZES = (128, 160, 192, 224)


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Empty caches of everybody, and no way to a network."""
    for name in ("TLKIT_HOME", "KERAS_HOME", "KAGGLEHUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    monkeypatch.setattr(socket.socket, "connect", no_network)


def no_network(*arguments):
    raise AssertionError(f"a connection was asked for: {arguments}")


def offline_with(folder, tmp_path, monkeypatch):
    """Another machine: this cache folder, and nothing in those of the libraries."""
    for name in ("KERAS_HOME", "KAGGLEHUB_CACHE"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    monkeypatch.setenv("TLKIT_HOME", str(folder))


def keras_weights(folder, sizes=SIZES):
    """The files of keras.applications.MobileNet, as Keras names and writes them; the weights are random."""
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(224, 224, 3))
    folder.mkdir(parents=True)
    for size in sizes:
        with h5py.File(folder / f"mobilenet_1_0_{size}_tf_no_top.h5", "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return model.get_weights()


def kaggle_preset(cache, entry, whole, *others):
    """A preset in kagglehub's cache, with the marks of a whole download."""
    handle = type(whole).presets[entry.source.preset]["kaggle_handle"].removeprefix("kaggle://")
    folder = cache / "models" / handle
    for part in (whole, *others):
        part.save_to_preset(folder)
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        mark = folder.parent / ".complete" / folder.name / f"{file.relative_to(folder)}.complete"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return folder


def small_bert():
    return keras_hub.models.BertBackbone(
        vocabulary_size=7,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        max_sequence_length=20,
    )


def bert_tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    return keras_hub.models.BertTokenizer(words, lowercase=True)


def test_keras_weights_are_downloaded_by_keras_and_taken_along(tmp_path, monkeypatch, capsys):
    values = keras_weights(tmp_path / "web")
    downloads = []

    def download(url, target, report=None):
        downloads.append(Path(url).name)
        shutil.copyfile(tmp_path / "web" / Path(url).name, target)

    monkeypatch.setattr(file_utils, "urlretrieve", download)
    monkeypatch.delenv("TLKIT_OFFLINE")
    assert main(["zoo", "fetch", "mobilenet", "--to", str(tmp_path / "stick")]) == 0
    assert "TLKIT_OFFLINE=1" in capsys.readouterr().out
    assert len(downloads) == len(SIZES), "those that have weights of their own"
    assert not (tmp_path / "KERAS_HOME" / "models").exists()
    entry = zoo.get("mobilenet")
    assert zoo.verify([entry]) == {"mobilenet": "ok"}
    assert select(zoo.entries(), cached=True) == (entry,)
    assert prune() == ()

    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    offline_with(tmp_path / "stick", tmp_path, monkeypatch)
    for size in (*SIZES, 96):
        model = load(entry, image_size=size).model
        assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), values, strict=True))
    assert fetch_weights(entry).is_relative_to(tmp_path / "stick")
    assert len(downloads) == len(SIZES)


def test_what_keras_has_downloaded_is_not_downloaded_again(tmp_path, monkeypatch):
    keras_weights(tmp_path / "KERAS_HOME" / "models")
    entry = zoo.get("mobilenet")
    assert zoo.verify([entry]) == {"mobilenet": "not fetched"}
    with pytest.raises(
        FetchError, match="are not in the cache folder; Keras downloads them: tlkit zoo fetch"
    ):
        fetch_weights(entry)
    load(entry, image_size=224)
    (kept,) = (tmp_path / "TLKIT_HOME" / "keras").glob("*/*.h5")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    assert zoo.verify([entry]) == {"mobilenet": "damaged"}
    with pytest.raises(FetchError, match="are damaged in the cache folder"):
        fetch_weights(entry)
    load(entry, image_size=224)
    assert kept.read_bytes() == whole
    monkeypatch.setattr("tlkit.zoo.pruning.entries", lambda: (zoo.get("vgg16"),))
    assert [one.path for one in prune()] == [kept.parent]


def test_without_a_network_the_weights_for_the_entry_s_own_size_are_enough(tmp_path, capfd):
    entry = zoo.get("mobilenet")
    keras_weights(tmp_path / "KERAS_HOME" / "models", sizes=(160, 224))
    assert select(zoo.entries(), offline=True, source="keras") == (entry,)
    assert main(["zoo", "fetch", "mobilenet", "--to", str(tmp_path / "stick")]) == 0
    told = "".join(capfd.readouterr())
    assert "mobilenet: its weights for pictures of 128, 192 pixels are not on this machine" in told
    assert "Downloading" not in told
    assert len(list((tmp_path / "stick").rglob("*.h5"))) == 2
    for folder in (tmp_path / "KERAS_HOME", tmp_path / "TLKIT_HOME"):
        next(folder.rglob("*_224_*.h5")).unlink()
    assert select(zoo.entries(), cached=True) == ()
    with pytest.raises(FetchError, match="MobileNet are not in the cache folder, nor in Keras's"):
        fetch_backbone(entry)


def test_damaged_keras_weights_are_called_damaged(tmp_path):
    entry = zoo.get("mobilenet")
    keras_weights(tmp_path / "KERAS_HOME" / "models", sizes=(224,))
    kept = fetch_backbone(entry, print)
    kept.write_bytes(b"damaged")
    assert select([entry], offline=True) == (entry,), "Keras has them"
    shutil.rmtree(tmp_path / "KERAS_HOME")
    assert select([entry], offline=True) == ()
    with pytest.raises(FetchError, match="MobileNet are damaged in the cache folder, not in Keras's"):
        fetch_backbone(entry)


def test_keras_weights_with_another_hash_than_keras_names_are_not_kept(tmp_path, monkeypatch):
    def download(url, target, report=None):
        Path(target).write_bytes(b"something else")

    monkeypatch.delenv("TLKIT_OFFLINE")
    monkeypatch.setattr(file_utils, "urlretrieve", download)
    with pytest.raises(FetchError, match="could not download the weights of MobileNetV3Small: Incomplete"):
        fetch_backbone("mobilenet_v3_small")
    assert list((tmp_path / "TLKIT_HOME").rglob("*.h5")) == []


def test_a_preset_of_texts_is_taken_along(tmp_path, monkeypatch):
    entry = zoo.get("bert_tiny_en_uncased")
    whole = small_bert()
    kaggle_preset(tmp_path / "KAGGLEHUB_CACHE", entry, whole, bert_tokenizer())
    kept = fetch_backbone(entry)
    assert not (kept / "metadata.json").exists(), "only what is needed"
    zoo.export_to(tmp_path / "stick", [entry])
    offline_with(tmp_path / "stick", tmp_path, monkeypatch)
    assert zoo.verify([entry]) == {entry.name: "ok"}
    model = load(entry).model
    ids = np.array([[2, 5, 6, 3]])
    inputs = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    expected = whole.predict(inputs, verbose=0)["sequence_output"]
    np.testing.assert_allclose(model.predict(inputs, verbose=0)["sequence"], expected, atol=1e-5)
    words = (source_folder(entry) / "vocabulary.txt").read_text().split()
    assert words[-2:] == ["a", "b"]
    assert prune() == ()


def test_a_damaged_preset_is_fetched_again(tmp_path):
    entry = zoo.get("bert_tiny_en_uncased")
    kaggle_preset(tmp_path / "KAGGLEHUB_CACHE", entry, small_bert(), bert_tokenizer())
    weights = fetch_backbone(entry) / "model.weights.h5"
    weights.write_bytes(b"damaged")
    assert zoo.verify([entry]) == {entry.name: "damaged"}
    with pytest.raises(FetchError, match="not in the cache folder|damaged"):
        zoo.export_to(tmp_path / "stick", [entry])
    load(entry)
    assert zoo.verify([entry]) == {entry.name: "ok"}


def test_a_damaged_preset_does_not_work_offline_and_is_called_damaged(tmp_path, capsys):
    entry = zoo.get("bert_tiny_en_uncased")
    kaggle_preset(tmp_path / "KAGGLEHUB_CACHE", entry, small_bert(), bert_tokenizer())
    (fetch_backbone(entry) / "model.weights.h5").write_bytes(b"damaged")
    assert select([entry], offline=True) == (entry,), "KerasHub has it"
    shutil.rmtree(tmp_path / "KAGGLEHUB_CACHE")
    assert select([entry], offline=True) == ()
    assert main(["zoo", "info", entry.name]) == 0
    assert "damaged: true" in capsys.readouterr().out
    with pytest.raises(
        FetchError, match="bert_tiny_en_uncased is damaged in the cache folder, not in KerasHub"
    ):
        fetch_backbone(entry)


def test_a_file_name_that_cannot_be_hashed_is_damage_and_no_end_of_everything(tmp_path, capsys):
    entry = zoo.get("bert_tiny_en_uncased")
    kaggle_preset(tmp_path / "KAGGLEHUB_CACHE", entry, small_bert(), bert_tokenizer())
    kept = fetch_backbone(entry)
    (kept / "a\nb").touch()
    assert main(["zoo", "verify"]) == 3
    assert f"Damaged: {entry.name}." in capsys.readouterr().err
    fetch_backbone(entry)
    assert zoo.verify()[entry.name] == "ok"
    assert not (kept / "a\nb").exists()


def test_a_preset_that_tlkit_cannot_use_is_not_kept(tmp_path):
    whole = keras_hub.models.GPT2Backbone(
        vocabulary_size=7,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        max_sequence_length=20,
    )
    entry = zoo.get("bert_tiny_en_uncased")
    source = KerasHubSource(kind="keras_hub", preset="gpt2_base_en")
    entry = entry.model_copy(update={"source": source})
    folder = kaggle_preset(tmp_path / "KAGGLEHUB_CACHE", entry, whole)
    (folder / "model.weights.h5").write_bytes(b"")  # it is not even asked for
    with pytest.raises(
        ConfigError, match="gpt2_base_en is a GPT2Backbone, which is not a backbone that tlkit"
    ):
        describe(source, "mine")
    assert list((tmp_path / "TLKIT_HOME").rglob("*.json")) == []


def test_a_preset_that_kagglehub_downloads_leaves_nothing_in_its_own_cache(tmp_path, monkeypatch):
    entry = zoo.get("bert_tiny_en_uncased")
    folder = kaggle_preset(tmp_path / "web", entry, small_bert(), bert_tokenizer())

    def download(handle, path):
        cache = Path(os.environ["KAGGLEHUB_CACHE"])
        if not (folder / path).exists():
            raise ValueError(f"{path} is not present in the model files")
        target = cache / "models" / handle / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target)
        return str(target)

    monkeypatch.setattr("kagglehub.model_download", download)
    monkeypatch.delenv("TLKIT_OFFLINE")
    kept = fetch_backbone(entry)
    assert {path.name for path in kept.rglob("*") if path.is_file()} == {
        "config.json",
        "model.weights.h5",
        "tokenizer.json",
        "vocabulary.txt",
    }
    assert [path for path in kept.parent.iterdir() if not path.name.startswith(".")] == [kept]
    assert os.environ["KAGGLEHUB_CACHE"] == str(tmp_path / "KAGGLEHUB_CACHE")
    assert not (tmp_path / "KAGGLEHUB_CACHE").exists()


def test_what_hugging_face_has_downloaded_needs_no_network(tmp_path, monkeypatch):
    """Its cache is made of links, which are not taken over."""
    repository = tmp_path / "HF_HUB_CACHE" / "models--me--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    for part in (small_bert(), bert_tokenizer()):
        part.save_to_preset(repository / "blobs")
    for blob in [path for path in (repository / "blobs").rglob("*") if path.is_file()]:
        link = snapshot / blob.relative_to(repository / "blobs")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "HF_HUB_CACHE"))
    source = KerasHubSource(kind="keras_hub", preset="hf://me/tiny")
    entry = describe(source, "tiny")
    shutil.rmtree(repository)
    assert load(entry).model.count_params() == entry.params
    kept = fetch_backbone(entry)
    assert not any(path.is_symlink() for path in kept.rglob("*"))
    other = entry.model_copy(update={"source": source.model_copy(update={"preset": "hf://me/other"})})
    with pytest.raises(FetchError, match="me/other is not in the cache folder, .* TLKIT_OFFLINE forbids"):
        fetch_backbone(other)
