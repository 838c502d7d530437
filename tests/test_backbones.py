"""Loading backbones: names, sizes, seeds, files, and what goes wrong."""

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils

from tlkit import zoo
from tlkit.backbones import load, load_classifier
from tlkit.errors import ConfigError, FetchError, UnknownNameError
from tlkit.zoo.source import FileSource

SIZE = 32


def small(name="efficientnet_lite0", **options):
    return load(name, **{"weights": False, "image_size": SIZE, **options})


def with_source(name, **source):
    entry = zoo.get(name)
    return entry.model_copy(update={"source": FileSource(kind="file", **source)})


def test_a_backbone_offers_its_feature_map():
    backbone = small()
    assert backbone.entry is zoo.get("efficientnet_lite0")
    assert backbone.model.input.dtype == "float32"
    assert backbone.model.input.shape == (None, SIZE, SIZE, 3)
    assert backbone.features["map"] is backbone.model.output
    assert backbone.model.output.shape == (None, 1, 1, 1280)


def test_the_size_is_the_entry_s_own_unless_named():
    assert small("mobilenet_v2_torchvision", image_size=None).model.input.shape[1] == 224


def test_names_and_weight_paths_do_not_depend_on_what_was_built_before():
    first = small("xception", image_size=71).model
    keras.layers.Conv2D(1, 1)
    second = small("xception", image_size=71).model
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert [weight.path for weight in first.weights] == [weight.path for weight in second.weights]


def test_automatic_names_go_on_where_they_were():
    before = keras.layers.Conv2D(1, 1).name
    small("xception", image_size=71)
    after = keras.layers.Conv2D(1, 1).name
    number = int(before.rpartition("_")[2]) if before != "conv2d" else 0
    assert after == f"conv2d_{number + 1}"


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small"])
def test_without_weights_it_is_built_as_with_them(name, tmp_path, monkeypatch):
    empty = small(name, seed=0).model
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, empty)
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(tmp_path / "weights.h5"))
    filled = small(name, weights=True).model
    assert [layer.name for layer in empty.layers] == [layer.name for layer in filled.layers]
    assert [weight.path for weight in empty.weights] == [weight.path for weight in filled.weights]
    x = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    np.testing.assert_array_equal(empty(x), filled(x))


def test_the_seed_fixes_the_draw_and_nothing_else():
    import random

    state = random.getstate()
    draws = [small(seed=seed).model.get_weights() for seed in (1, 1, 2)]
    assert random.getstate() == state
    assert all(np.array_equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(draws[0], draws[2], strict=True))


def test_lite2_rounds_widths_and_repeats_like_the_original():
    model = small("efficientnet_lite2").model
    repeats = [
        len({layer.name.split("_")[0] for layer in model.layers if layer.name.startswith(f"block{i}")})
        for i in range(1, 8)
    ]
    widths = [model.get_layer(f"block{i}a_project_conv").filters for i in range(1, 8)]
    assert repeats == [1, 3, 3, 4, 4, 5, 1]
    assert widths == [16, 24, 48, 88, 120, 208, 352]


@pytest.mark.parametrize(
    ("name", "size"), [("efficientnet_lite0", 16), ("xception", 64), ("inception_v3", 70)]
)
def test_a_size_that_is_too_small_says_the_least(name, size):
    with pytest.raises(ConfigError, match=rf"image_size {size} is too small for '{name}': at least"):
        load(name, weights=False, image_size=size)


def test_an_unknown_name_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        load("resnet5O")


def test_an_unknown_builder_is_refused():
    entry = zoo.get("resnet50")
    entry = entry.model_copy(
        update={"constructor": entry.constructor.model_copy(update={"builder": "alexnet"})}
    )
    with pytest.raises(ConfigError, match="the builder 'alexnet'. Allowed: efficientnet_lite, .*, text_mlp"):
        load(entry, weights=False)


def test_offline_keras_weights_that_are_not_cached_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    download = file_utils.urlretrieve
    with pytest.raises(
        FetchError, match="MobileNetV3Small are not in the cache folder, nor in Keras's, and TLKIT_OFFLINE"
    ) as caught:
        load("mobilenet_v3_small", image_size=SIZE)
    assert "\n" not in str(caught.value)
    assert file_utils.urlretrieve is download


def test_a_failing_keras_download_is_one_line(monkeypatch, tmp_path, capsys):
    from urllib.error import URLError

    def fail(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.delenv("TLKIT_OFFLINE", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(file_utils, "urlretrieve", fail)
    with pytest.raises(
        FetchError, match="could not download the weights of VGG16: URL fetch failure.*not known"
    ) as caught:
        load("vgg16", image_size=SIZE)
    assert "\n" not in str(caught.value)
    printed = capsys.readouterr()
    assert "Downloading" not in printed.out, "standard output is for results"
    assert "Downloading" in printed.err


def test_a_saved_model_becomes_a_backbone_without_its_head(tmp_path):
    body = small("mobilenet_v2_torchvision", seed=3).model
    pooled = keras.layers.GlobalAveragePooling2D()(body.output)
    keras.Model(body.input, keras.layers.Dense(2)(pooled)).save(tmp_path / "mine.keras")
    backbone = load(
        with_source("mobilenet_v2_torchvision", path=str(tmp_path / "mine.keras")), image_size=SIZE
    )
    x = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype("float32")
    np.testing.assert_array_equal(backbone.model(x, training=False), body(x, training=False))


def test_a_saved_model_that_holds_its_backbone_as_one_layer_is_opened(tmp_path):
    body = small("mobilenet_v2_torchvision", seed=3).model
    inputs = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(body(inputs))
    keras.Model(inputs, keras.layers.Dense(2)(pooled)).save(tmp_path / "mine.keras")
    backbone = load(
        with_source("mobilenet_v2_torchvision", path=str(tmp_path / "mine.keras")), image_size=SIZE
    )
    assert backbone.model.name == "mobilenet_v2_torchvision"
    assert [layer.name for layer in backbone.model.layers] == [layer.name for layer in body.layers]


def test_the_feature_map_of_a_saved_model_can_be_named(tmp_path):
    small().model.save(tmp_path / "mine.keras")
    entry = with_source("efficientnet_lite0", path=str(tmp_path / "mine.keras"), output="block6d_add")
    assert load(entry, image_size=SIZE).model.output.shape == (None, 1, 1, 192)
    with pytest.raises(ConfigError, match="has no layer 'block9'"):
        load(
            with_source("efficientnet_lite0", path=str(tmp_path / "mine.keras"), output="block9"),
            image_size=SIZE,
        )


def test_a_weights_file_fills_the_constructor(tmp_path):
    body = small(seed=3).model
    body.save_weights(tmp_path / "mine.weights.h5")
    backbone = load(
        with_source("efficientnet_lite0", path=str(tmp_path / "mine.weights.h5")), image_size=SIZE
    )
    for ours, theirs in zip(backbone.model.get_weights(), body.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_saved_model_of_another_size_is_refused(tmp_path):
    small().model.save(tmp_path / "mine.keras")
    with pytest.raises(ConfigError, match="not pictures of 64 pixels"):
        load(with_source("efficientnet_lite0", path=str(tmp_path / "mine.keras")), image_size=64)


def test_a_saved_model_with_code_inside_is_refused(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "mine.keras")
    with pytest.raises(FetchError, match="holds a Lambda layer, which holds Python code"):
        load(with_source("efficientnet_lite0", path=str(tmp_path / "mine.keras")), image_size=SIZE)


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_damaged_file_is_one_line(tmp_path, content):
    (tmp_path / "mine.keras").write_bytes(content)
    (tmp_path / "mine.weights.h5").write_bytes(content)
    for name in ("mine.keras", "mine.weights.h5"):
        with pytest.raises(FetchError, match="mine") as caught:
            load(with_source("efficientnet_lite0", path=str(tmp_path / name)), image_size=SIZE)
        assert "\n" not in str(caught.value)


def test_files_are_checked_before_they_are_opened(tmp_path):
    path = tmp_path / "mine.keras"
    with pytest.raises(FetchError, match="no file of weights at"):
        load(with_source("efficientnet_lite0", path=str(path)))
    path.write_bytes(b"x")
    with pytest.raises(FetchError, match="does not have the sha256"):
        load(with_source("efficientnet_lite0", path=str(path), sha256="0" * 64))
    with pytest.raises(ConfigError, match="cannot be built without its weights"):
        load(with_source("efficientnet_lite0", path=str(path)), weights=False)
    with pytest.raises(ConfigError, match="no ImageNet classification top"):
        load_classifier(with_source("efficientnet_lite0", path=str(path)))
