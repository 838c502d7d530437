"""Backbones that are trained from scratch: shapes, padding, names, files and learning."""

import re

import keras
import numpy as np
import pytest

from tlkit.backbones.fresh_names import fresh_names, seeded
from tlkit.backbones.graph import calls_of
from tlkit.backbones.scratch_image import build_image_cnn
from tlkit.backbones.scratch_text import build_text_bilstm, build_text_cnn, build_text_mlp

TEXT = {"text_mlp": build_text_mlp, "text_cnn": build_text_cnn, "text_bilstm": build_text_bilstm}
CHANNELS = {"text_mlp": 6, "text_cnn": 6, "text_bilstm": 12}


def build(name, layers=2, **options):
    arguments = {
        "vocabulary_size": 30,
        "embedding_size": 5,
        "layers": layers,
        "width": 6,
        "activation": "relu" if name != "text_bilstm" else "tanh",
        "initializer": "glorot_uniform",
        "dropout": 0.0,
    }
    if name == "text_cnn":
        arguments["kernel_size"] = 3
    with fresh_names(), seeded(0):
        return TEXT[name](**{**arguments, **options})


def padded(lengths=(7, 3, 1, 0), size=7, seed=0):
    """Random tokens, also under the padding."""
    ids = np.random.default_rng(seed).integers(0, 30, (len(lengths), size)).astype("int32")
    mask = (np.arange(size) < np.array(lengths)[:, None]).astype("int32")
    return {"token_ids": ids, "padding_mask": mask}


@pytest.mark.parametrize("name", TEXT)
def test_a_text_backbone_gives_features_for_every_position(name):
    model = build(name)
    sequence = model(padded())["sequence"]
    assert sequence.shape == (4, 7, CHANNELS[name])
    assert sequence.dtype == "float32"
    assert set(model.input) == {"token_ids", "padding_mask"}
    assert model.output["sequence"].shape == (None, None, CHANNELS[name])


@pytest.mark.parametrize("name", TEXT)
def test_padding_changes_nothing_but_itself(name):
    model, inputs = build(name, layers=3), padded()
    sequence = np.array(model(inputs)["sequence"])
    assert np.all(sequence[inputs["padding_mask"] == 0] == 0)
    assert np.all(np.abs(sequence[inputs["padding_mask"] == 1]).sum(axis=-1) > 0)
    short = {key: value[1:2, :3] for key, value in inputs.items()}
    np.testing.assert_allclose(model(short)["sequence"], sequence[1:2, :3], atol=1e-6)


@pytest.mark.parametrize("name", TEXT)
def test_a_text_of_padding_alone_gives_zeros(name):
    sequence = build(name)(padded(lengths=(0, 0)))["sequence"]
    assert np.all(np.array(sequence) == 0)


@pytest.mark.parametrize("name", TEXT)
def test_a_position_knows_its_own_word(name):
    inputs = padded(lengths=(7,))
    inputs["token_ids"][0, 2:4] = 4, 9
    first, second = np.array(build(name)(inputs)["sequence"])[0, 2:4]
    assert np.abs(first - second).max() > 1e-3


def test_the_mean_over_an_mlps_sequence_is_the_network_of_averaged_embeddings():
    model, inputs = build("text_mlp"), padded(lengths=(7, 3, 1))
    sequence = np.array(model(inputs)["sequence"])
    mask = inputs["padding_mask"][..., None]
    embedded = np.array(model.get_layer("embeddings").embeddings)[inputs["token_ids"]]
    expected = (embedded * mask).sum(axis=1) / mask.sum(axis=1)
    for layer in (model.get_layer("layer1"), model.get_layer("layer2")):
        expected = np.maximum(expected @ np.array(layer.kernel) + np.array(layer.bias), 0)
    np.testing.assert_allclose((sequence * mask).sum(axis=1) / mask.sum(axis=1), expected, atol=1e-6)


def test_an_lstm_reads_in_both_directions():
    inputs = padded(lengths=(7,))
    model = build("text_bilstm", layers=1)
    before = np.array(model(inputs)["sequence"])[0, 3]
    for place, changed in ((0, slice(0, 6)), (6, slice(6, 12))):
        other = {key: value.copy() for key, value in inputs.items()}
        other["token_ids"][0, place] = (other["token_ids"][0, place] + 1) % 30
        moved = np.array(model(other)["sequence"])[0, 3] != before
        assert moved[changed].any()
        assert moved.sum() == moved[changed].sum()


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("layers", [1, 3])
def test_layers_with_weights_have_stable_names(name, layers):
    for _ in range(2):
        model = build(name, layers=layers)
        names = [layer.name for layer in model.layers if layer.weights]
        assert names == ["embeddings", *(f"layer{number}" for number in range(1, layers + 1))]


@pytest.mark.parametrize("name", TEXT)
def test_between_two_layers_only_the_mask_and_one_more_tensor_are_needed(name):
    model = build(name, layers=3)
    calls = calls_of(model)
    inputs = {id(tensor) for tensor in model.inputs}
    for number in (1, 2):
        place = next(i for i, call in enumerate(calls) if call.operation.name == f"layer{number}_dropout")
        made = {id(tensor) for call in calls[: place + 1] for tensor in call.outputs} - inputs
        needed = {id(tensor) for call in calls[place + 1 :] for tensor in call.inputs}
        assert len(made & needed) == 1


@pytest.mark.parametrize("name", TEXT)
def test_plain_keras_opens_a_saved_text_backbone(name, tmp_path):
    model, inputs = build(name), padded()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again(inputs)["sequence"], model(inputs)["sequence"])


@pytest.mark.parametrize("name", TEXT)
def test_a_text_backbone_learns_which_words_matter(name):
    rng = np.random.default_rng(0)
    inputs = padded(lengths=rng.integers(2, 8, 64))
    inputs["token_ids"] %= 28
    labels = np.arange(64) % 2
    inputs["token_ids"][np.arange(64), rng.integers(0, inputs["padding_mask"].sum(axis=1))] = 28 + labels
    # The other label's word, under the padding, where it must not be seen.
    inputs["token_ids"] = np.where(inputs["padding_mask"], inputs["token_ids"], 29 - labels[:, None])
    backbone = build(name, layers=1, dropout=0.1)
    given = {name: keras.Input((None,), dtype="int32", name=name) for name in backbone.input}
    count = keras.ops.sum(keras.ops.cast(given["padding_mask"], "float32"), axis=1, keepdims=True)
    pooled = keras.ops.sum(backbone(given)["sequence"], axis=1) / count
    model = keras.Model(given, keras.layers.Dense(1, "sigmoid")(pooled))
    model.compile(keras.optimizers.Adam(0.03), "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(inputs, labels, batch_size=16, epochs=12, verbose=0).history
    assert history["accuracy"][-1] > 0.9


@pytest.mark.parametrize("name", TEXT)
def test_half_precision_keeps_padding_out(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    sequence = build(name)(padded())["sequence"]
    assert sequence.dtype == "bfloat16"
    assert np.all(np.array(keras.ops.cast(sequence, "float32"))[1, 3:] == 0)


def image_cnn(size=32, **options):
    arguments = {
        "layers": 3,
        "width": 4,
        "kernel_size": 3,
        "activation": "relu",
        "initializer": "he_uniform",
        "dropout": 0.1,
    }
    return build_image_cnn(size, **{**arguments, **options})


@pytest.mark.parametrize(
    ("size", "layers", "shape"),
    [(32, 3, (4, 4, 16)), (33, 2, (9, 9, 8)), (32, 7, (1, 1, 256))],
)
def test_an_image_cnn_halves_the_side_and_doubles_the_width(size, layers, shape):
    model = image_cnn(size, layers=layers)
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, *shape)


def test_an_image_cnn_groups_its_layers_by_name(tmp_path):
    model = image_cnn()
    weighted = [layer.name for layer in model.layers if layer.weights]
    assert weighted == [f"layer{number}{part}" for number in (1, 2, 3) for part in ("", "_norm")]
    assert all(re.fullmatch(r"layer\d+(_.*)?", name) for name in weighted)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    pictures = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(again(pictures), model(pictures))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu"])
def test_activation_and_initialiser_are_those_that_were_asked_for(activation):
    model = image_cnn(activation=activation, initializer="zeros")
    assert model.get_layer("layer1_activation").activation is keras.activations.get(activation)
    assert not np.any(model.get_layer("layer2").get_weights()[0])
    for name in TEXT:
        layer = build(name, activation=activation, initializer="zeros").get_layer("layer1")
        layer = layer.forward_layer if name == "text_bilstm" else layer
        assert layer.activation is keras.activations.get(activation)
        assert not np.any(layer.get_weights()[0])


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_an_image_cnn_learns_shapes(activation):
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    pictures = rng.normal(0, 0.2, (64, 16, 16, 3)).astype("float32")
    for picture, label, place in zip(pictures, labels, rng.integers(2, 14, 64), strict=True):
        picture[(slice(place, place + 1), slice(None))[:: 1 if label else -1]] += 1.0  # a line: – or |
    backbone = image_cnn(16, layers=2, width=8, activation=activation, dropout=0.0)
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(1, "sigmoid")(pooled))
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(pictures, labels, batch_size=16, epochs=15, verbose=0).history
    assert max(history["accuracy"]) > 0.9
