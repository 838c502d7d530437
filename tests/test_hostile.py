"""Files that somebody made to do harm: each is made here, and refused with one line that says what was found.

Every maker gives what a user would do with its file, and what the refusal must say. The payloads make the
folder that `Trap` names; the test looks whether it is there, and whether anything else was written elsewhere.
"""

import json
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

import tlkit
from tlkit import zoo
from tlkit.backbones import import_keras_hub
from tlkit.backbones.checked_keras import load_checked_model
from tlkit.backbones.keras_file import load_keras_file
from tlkit.backbones.keras_hub_errors import preset_errors
from tlkit.config import load_config
from tlkit.errors import FetchError, TlkitError
from tlkit.exporting import readme
from tlkit.zoo import archive

import hostile_archives
import hostile_keras
import hostile_weights
from hostile import Trap
from hostile_keras import code_layer, keras_file, sequential

MAKERS = {**hostile_weights.MAKERS, **hostile_keras.MAKERS, **hostile_archives.MAKERS}


def test_there_are_enough_of_them():
    parts = [hostile_weights.MAKERS, hostile_keras.MAKERS, hostile_archives.MAKERS]
    assert len(MAKERS) == sum(map(len, parts)) >= 30


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_refused_with_one_line_that_says_what_was_found(name, tmp_path, monkeypatch):
    given, elsewhere = tmp_path / "a" / "b" / "given", tmp_path / "elsewhere"
    given.mkdir(parents=True)
    elsewhere.mkdir()
    trap = Trap(elsewhere)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(given / "index"))
    monkeypatch.setenv("TLKIT_HOME", str(given / "home"))
    monkeypatch.setattr(archive, "FREE_BYTES", 1_000_000)
    do, says = MAKERS[name](given, trap)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(given)}
    with pytest.raises(TlkitError, match=says) as caught:
        do()
    message = str(caught.value)
    assert message.isprintable(), "it is one line, and nothing in it steers a terminal"
    assert len(message) < 700
    assert caught.value.exit_code == 2
    assert not trap.path.exists(), "something of it was executed"
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(given)}
    assert after == before, "something was written outside of its folder"


def test_the_traps_work(tmp_path):
    """Read without care, the payloads do what they are there for."""
    trap = Trap(tmp_path)
    pickle.loads(pickle.dumps(trap))
    assert trap.path.is_dir()
    trap.path.rmdir()
    np.save(tmp_path / "w.npy", np.array([trap], object), allow_pickle=True)
    np.load(tmp_path / "w.npy", allow_pickle=True)
    assert trap.path.is_dir()
    trap.path.rmdir()
    path = keras_file(tmp_path, sequential(code_layer(trap)))
    keras.saving.load_model(path, safe_mode=False)
    assert trap.path.is_dir()
    trap.path.rmdir()
    yaml.unsafe_load(f"!!python/object/apply:os.mkdir ['{trap.path}']")
    assert trap.path.is_dir()


# -- what is not refused


def test_models_without_harm_are_opened(tmp_path):
    """Layers of every kind that a config nests: wrappers, shared parts, initialisers, operations."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(
        4, 3, activation="relu", kernel_initializer=keras.initializers.HeNormal(1), kernel_regularizer="l2"
    )(x)
    x = keras.layers.BatchNormalization()(keras.ops.relu(x) + 1)
    x = keras.layers.Activation(keras.activations.silu)(keras.layers.RandomFlip()(x))
    inner = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.TimeDistributed(keras.layers.Dense(3))])
    inner.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9)), keras.losses.Huber())
    inner.optimizer.build(inner.trainable_variables)
    x = keras.layers.Bidirectional(keras.layers.LSTM(2))(keras.layers.Reshape((36, 3))(inner(x)))
    model = keras.Model(inputs, keras.layers.Dense(2, dtype="mixed_bfloat16")(x))
    model.compile("adamw", "mse")
    check_opens(model, tmp_path / "m.keras")


def test_models_without_harm_are_opened_in_the_older_format_too(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, kernel_regularizer="l2")(inputs))
    x = keras.layers.add([keras.layers.ReLU(6.0)(x), x])
    model = keras.Model(inputs, keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])(x))
    check_opens(model, tmp_path / "m.h5")


def check_opens(model, path):
    model.save(path)
    opened = load_checked_model(path)
    assert [layer.name for layer in opened.layers] == [layer.name for layer in model.layers]
    for before, after in zip(model.get_weights(), opened.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_one_s_own_classes_are_opened_when_they_are_named(tmp_path):
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    keras.Sequential([keras.Input((4,)), Doubled()]).save(tmp_path / "m.keras")
    with pytest.raises(FetchError, match="Doubled, which is no layer that is known here"):
        load_checked_model(tmp_path / "m.keras")
    assert load_checked_model(tmp_path / "m.keras", {"Doubled": Doubled})(np.ones((1, 4))).shape == (1, 4)


# -- what lands in pages and terminals


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)


def test_names_with_html_stay_text_in_a_notebook():
    from tlkit.workflows.run import Run

    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    entry = zoo.get("efficientnet_lite0").model_copy(update={"name": evil})
    run = Run(
        path=Path(f"runs/{evil}"),
        config=load_config({"data": {"source": evil}}).config,
        entry=entry,
        classes=(evil,),
    )
    tags = Tags()
    tags.feed(run._repr_html_())
    assert set(tags.found) == {"table", "tr", "th", "td"}


def test_names_with_html_stay_text_in_the_readme_of_an_export():
    names = ["<script>alert(1)</script>", "a`<img src=x>", "``<b>", "plain"]
    (_, line) = readme._labels(names)
    shown = re.sub(r"(`+)( ?)(.*?)\2\1(?!`)", "", line)  # what a reader of Markdown does not take for code
    assert shown == "In the order of the scores: , , , ."


# -- the same through the doors that people use


def test_a_hostile_keras_file_is_refused_as_a_backbone(tmp_path):
    path = keras_file(tmp_path, sequential(code_layer(Trap(tmp_path))))
    with pytest.raises(FetchError, match=r"m\.keras was refused: its config holds a Lambda layer"):
        tlkit.load_backbone(str(path))
    assert not (tmp_path / "executed").exists()


def test_a_file_of_pickled_numbers_is_refused_as_a_backbone(tmp_path):
    np.save(tmp_path / "w.npy", np.array([Trap(tmp_path)], object), allow_pickle=True)
    with pytest.raises(TlkitError, match="a numpy file of Python objects, which is a pickle"):
        load_keras_file(tmp_path / "w.npy")
    assert not (tmp_path / "executed").exists()


def test_a_hostile_preset_is_refused_as_a_backbone(tmp_path):
    keras_hub = import_keras_hub()
    encoder = keras_hub.models.BertBackbone(
        vocabulary_size=9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4, max_sequence_length=8
    )
    encoder.save_to_preset(tmp_path / "good")
    reference = f"keras_hub:{tmp_path / 'good'}"
    config = tmp_path / "good" / "config.json"
    content = json.loads(config.read_text())
    content["config"]["name"] = code_layer(Trap(tmp_path))
    config.write_text(json.dumps(content))
    with pytest.raises(FetchError, match="its config holds a Lambda layer"):
        tlkit.load_backbone(reference)
    assert not (tmp_path / "executed").exists()


# -- presets of KerasHub that lead out of their folder


HUGGING_FACE_BERT = {
    "model_type": "bert", "vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
    "intermediate_size": 4, "max_position_embeddings": 8, "type_vocab_size": 2, "hidden_dropout_prob": 0.1,
}  # fmt: skip


def _hugging_face_preset(folder: Path) -> Path:
    """A folder that KerasHub converts itself, and a secret beside it."""
    folder.mkdir()
    (folder.parent / "secret.safetensors").write_bytes(b"secret")
    (folder.parent / "vocab.txt").write_text("secret")
    (folder / "config.json").write_text(json.dumps(HUGGING_FACE_BERT))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    return folder


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/secret.safetensors", 3])
def test_weights_outside_a_preset_are_not_opened(name, tmp_path):
    folder = _hugging_face_preset(tmp_path / "preset")
    index = {"weight_map": {"embeddings.word_embeddings.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FetchError, match="it names a file outside its folder") as caught, preset_errors("x"):
        import_keras_hub().models.BertBackbone.from_preset(str(folder))
    assert "\n" not in str(caught.value)


def test_the_readers_that_kerashub_imported_by_name_are_checked_too(tmp_path):
    from keras_hub.src.utils.transformers import safetensor_utils

    folder = _hugging_face_preset(tmp_path / "preset")
    for path in ("../secret.safetensors", str(tmp_path / "secret.safetensors")):
        with pytest.raises(FetchError, match="outside its folder"), preset_errors("x"):
            safetensor_utils.get_file(str(folder), path)
    assert safetensor_utils.get_file(str(folder), "../secret.safetensors")  # KerasHub's own again


def test_links_out_of_a_preset_are_not_followed(tmp_path):
    folder = _hugging_face_preset(tmp_path / "preset")
    (folder / "vocab.txt").symlink_to(tmp_path / "vocab.txt")
    with (
        pytest.raises(FetchError, match=r"'vocab.txt' is a link to .*, outside its folder"),
        preset_errors("x"),
    ):
        import_keras_hub().models.BertTokenizer.from_preset(str(folder))


def test_the_links_of_hugging_face_s_own_cache_are_followed(tmp_path):
    folder = _hugging_face_preset(tmp_path / "preset")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1234").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    (folder / "vocab.txt").symlink_to(tmp_path / "blobs" / "1234")
    (tmp_path / "snapshots").mkdir()
    kept = folder.rename(tmp_path / "snapshots" / "main")
    with preset_errors("x"):
        assert import_keras_hub().models.BertTokenizer.from_preset(str(kept)).vocabulary_size() == 6


def test_a_tokenizer_s_config_cannot_send_kerashub_elsewhere(tmp_path):
    keras_hub = import_keras_hub()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "vocabulary.txt").write_text("\n".join(vocabulary))
    keras_hub.models.BertBackbone(
        vocabulary_size=9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=4, max_sequence_length=8
    ).save_to_preset(tmp_path / "preset")
    keras_hub.models.BertTokenizer(vocabulary).save_to_preset(tmp_path / "preset")
    config = tmp_path / "preset" / "tokenizer.json"
    content = json.loads(config.read_text())
    content["config"]["config_file"] = f"{tmp_path}/elsewhere.json"
    config.write_text(json.dumps(content))
    with (
        pytest.raises(FetchError, match=r"elsewhere/vocabulary\.txt', outside its folder"),
        preset_errors("x"),
    ):
        keras_hub.models.Tokenizer.from_preset(str(tmp_path / "preset"))
