"""The key of stored features: whatever they depend on changes it, and nothing else does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from test_text_preprocessing import FACTS, FIXTURES
from test_text_preprocessing import preprocessing as texts

import tlkit
from tlkit.config import DataConfig, PreprocessingConfig
from tlkit.config.augment import RandomBrightness, RandomFlip
from tlkit.config.text import Normalization
from tlkit.data.texts import encode_texts, read_texts
from tlkit.features import ColumnSpec, MemoryTable
from tlkit.preprocessing import make_augment, make_preprocessing
from tlkit.preprocessing.tokenizers import make_tokenizer
from tlkit.preprocessing.views import all_flips, drawn_views, plain_view
from tlkit.training.cache import key as keys
from tlkit.training.cache.features import Features
from tlkit.training.cache.key import key_of_boundary
from tlkit.zoo.entry import Resizing

from small_models import small_entry
from test_training import make_examples

PICTURES = make_preprocessing(small_entry(16).input, PreprocessingConfig(image_size=16, augment="none"))
ops = keras.ops
Body = Callable[[Any], Any]


def make_lower(body: Body, shape: tuple[int | None, ...] = (8, 8, 3), seed: int = 0) -> keras.Model:
    """The lower part of a model, with the same weights wherever it has the same shapes."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape, name="given")
    return keras.Model(inputs, {"features": body(inputs)})


def key(body: Body, preprocessing: Any = PICTURES, **options: Any) -> str:
    found = key_of_boundary(make_lower(body, **options), preprocessing)
    assert found is not None
    return found


def convolution(**settings: Any) -> keras.layers.Layer:
    return keras.layers.Conv2D(3, 3, padding="same", **settings)


def convolved(**settings: Any) -> Body:
    return lambda x: convolution(**settings)(x)


def plain(x: Any) -> Any:
    return keras.layers.ReLU()(convolution()(x))


def shared(order: tuple[int, ...]) -> Body:
    """Calls of two layers that differ in their weights alone."""

    def body(x: Any) -> Any:
        layers = [convolution(), convolution()]
        for number in order:
            x = layers[number](x)
        return x

    return body


def masked(argument: str) -> Body:
    def body(x: Any) -> Any:
        rows = ops.reshape(x, (-1, 64, 3))
        return keras.layers.MultiHeadAttention(1, 4)(rows, rows, **{argument: ops.max(rows, axis=-1) > 0.5})

    return body


LARGE = np.arange(8 * 8 * 30, dtype="float32").reshape(8, 8, 30)  # more than numpy shows
CHANGED = LARGE + (LARGE.max() // 2 == LARGE)

PAIRS: dict[str, tuple[Body, Body]] = {
    "setting of a layer": (plain, lambda x: keras.layers.ReLU(max_value=6.0)(convolution()(x))),
    "dilation": (convolved(), convolved(dilation_rate=2)),
    "precision": (convolved(), convolved(dtype="mixed_bfloat16")),
    "axis": (
        lambda x: x - ops.mean(x, axis=1, keepdims=True),
        lambda x: x - ops.mean(x, axis=2, keepdims=True),
    ),
    "axes": (lambda x: ops.transpose(x, [0, 1, 2, 3]), lambda x: ops.transpose(x, [0, 2, 1, 3])),
    "widths": (
        lambda x: ops.pad(x, [[0, 0], [2, 0], [2, 0], [0, 0]]),
        lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    ),
    "type": (lambda x: ops.cast(x, "float16"), lambda x: ops.cast(x, "int32")),
    "slice": (lambda x: x[:, ::2], lambda x: x[:, 1::2]),
    "operation": (lambda x: ops.exp(x), lambda x: ops.tanh(x)),
    "order of arguments": (
        lambda x: ops.subtract(x, ops.exp(x)),
        lambda x: ops.subtract(ops.exp(x), x),
    ),
    "which calls share a layer": (shared((0, 1, 0)), shared((0, 1, 1))),
    "order of layers": (shared((0, 1)), shared((1, 0))),
    "name of an argument": (masked("query_mask"), masked("value_mask")),
    "large array": (
        lambda x: ops.tile(x, (1, 1, 1, 10)) + LARGE,
        lambda x: ops.tile(x, (1, 1, 1, 10)) + CHANGED,
    ),
    "large tensor": (
        lambda x: ops.tile(x, (1, 1, 1, 10)) + tf.constant(LARGE),
        lambda x: ops.tile(x, (1, 1, 1, 10)) + tf.constant(CHANGED),
    ),
    "boundary": (plain, convolved()),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_model_that_computes_something_else_has_another_key(name):
    first, second = PAIRS[name]
    assert key(first) != key(second)
    assert key(first) == key(first), "the same model has the same key"


def test_other_weights_have_another_key():
    assert key(plain) != key(plain, seed=1)


def test_inputs_of_another_size_have_another_key():
    assert key(plain) != key(plain, shape=(4, 4, 3))


def test_a_model_that_was_saved_and_read_again_has_its_key(tmp_path):
    def body(x: Any) -> Any:
        x = keras.layers.Conv2D(4, (3, 3), strides=(2, 2), padding="same")(x)
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return ops.mean(keras.layers.ReLU()(x)[:, 1:], axis=(1, 2))

    model = make_lower(body)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert key_of_boundary(again, PICTURES) == key_of_boundary(model, PICTURES) is not None


def own_activation(x: Any) -> Any:
    return x * 2


class OwnLayer(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * 2


class OwnOperation(keras.Operation):
    def call(self, x: Any) -> Any:
        return x * 2

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.parametrize(
    "body",
    [
        OwnLayer(),
        OwnOperation(),
        keras.layers.Activation(own_activation),
        keras.layers.Lambda(own_activation, output_shape=lambda shape: shape),
        lambda x: ops.map(own_activation, x),
        lambda x: keras.Sequential([OwnLayer()])(x),
    ],
    ids=["layer", "operation", "activation", "lambda", "function", "layer inside"],
)
def test_code_that_may_change_while_its_settings_stay_has_no_key(body):
    assert key_of_boundary(make_lower(body), PICTURES) is None


SCALING = PICTURES.scaling


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 8},
        {"resize": "crop"},
        {"scaling": SCALING.model_copy(update={"std": (1.0, 1.0, 2.0)})},
        {"scaling": SCALING.model_copy(update={"order": "bgr"})},
        {"resizing": Resizing(antialias=False)},
        {"resizing": Resizing(interpolation="bicubic")},
    ],
    ids=str,
)
def test_another_preprocessing_of_pictures_has_another_key(change):
    assert key(plain, replace(PICTURES, **change)) != key(plain)


def embedded(x: Any) -> Any:
    return keras.layers.Embedding(50, 4)(x)


def other_tokenizer(folder: Path) -> Any:
    """Two letters have changed places."""
    shutil.copytree(FIXTURES, folder)
    file = folder / FACTS.files[0]
    lines = file.read_text(encoding="utf-8").split("\n")
    first, second = lines.index("a"), lines.index("b")
    lines[first], lines[second] = lines[second], lines[first]
    file.write_text("\n".join(lines), encoding="utf-8")
    return make_tokenizer(FACTS, folder)


@pytest.mark.parametrize(
    "change",
    [
        {"length": 16},
        {"task": "embed"},
        {"mask": False},
        {"long_texts": "tail"},
        {"long_texts": "windows", "max_windows": 3},
        {"long_texts": "windows", "max_windows": 4},
        {"tokenizer": "other"},
    ],
    ids=str,
)
def test_another_preprocessing_of_texts_has_another_key(change, tmp_path):
    if "tokenizer" in change:
        change = {"tokenizer": other_tokenizer(tmp_path / "tokens")}
    windows = {"long_texts": "windows", "max_windows": 2} if "max_windows" in change else {}
    found = key(embedded, texts(**change), shape=(None,))
    assert found != key(embedded, texts(**windows), shape=(None,))
    assert found == key(embedded, texts(**change), shape=(None,))


def test_other_code_and_other_packages_have_another_key(tmp_path, monkeypatch):
    before, found = key(plain), keys._code.__wrapped__()
    for part in keys.CODE:
        shutil.copytree(
            Path(tlkit.__file__).parent / part,
            tmp_path / part,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    monkeypatch.setattr(tlkit, "__file__", str(tmp_path / "__init__.py"))
    assert keys._code.__wrapped__() == found
    for part in keys.CODE:
        file = next((tmp_path / part).rglob("[a-z]*.py"))
        file.write_bytes(file.read_bytes() + b"\n")
        changed = keys._code.__wrapped__()
        assert changed != found, part
        found = changed
    monkeypatch.setattr(keys.metadata, "version", lambda name: "0")
    assert keys._code.__wrapped__() != found
    monkeypatch.setattr(keys, "_code", lambda: "other code")
    assert key(plain) != before


def ids(examples: Any, views: Any, hashes: Any = None, preprocessing: Any = PICTURES) -> list[bytes]:
    """The names under which features of these examples are stored."""
    hashes = hashes or {name: f"hash of {name}" for name in examples.ids}
    table = MemoryTable([ColumnSpec("features", "float32", (1,))])
    found = Features(None, table, "float32", preprocessing, hashes)._ids(examples, views)
    assert len(set(found)) == len(found)
    return found


def drawn(count: int = 3, seed: int = 0, factor: float = 0.2) -> Any:
    options = (RandomBrightness(factor=factor),)
    return drawn_views(make_augment(options), options, count, seed)


def test_each_version_of_each_picture_has_features_of_its_own():
    examples = make_examples(4)
    hashes = {name: f"hash of {name}" for name in examples.ids}
    found = [
        ids(examples, plain_view()),
        ids(examples, plain_view(), {**hashes, examples.ids[0]: "another picture"})[:1],
        ids(examples, all_flips(RandomFlip()))[1:4],
        ids(examples, drawn()),
        ids(examples, drawn(seed=1)),
        ids(examples, drawn(factor=0.3)),
    ]
    flat = [each for part in found for each in part]
    assert len(set(flat)) == len(flat)


def test_more_views_of_the_same_kind_contain_the_fewer():
    examples = make_examples(4)
    assert set(ids(examples, drawn(2))) < set(ids(examples, drawn(3)))
    ways = all_flips(RandomFlip())
    assert set(ids(examples, plain_view())) < set(ids(examples, ways))


def test_texts_that_are_normalised_in_another_way_have_features_of_their_own(tmp_path):
    written = ["An Apple a day", "no capitals at all", "The End of it", "some more of them"]
    table = pd.DataFrame({"text": written, "label": ["x", "y", "x", "y"]})
    table.to_csv(tmp_path / "texts.csv", index=False)

    def stored(**settings: Any) -> list[bytes]:
        spec = DataConfig(source=str(tmp_path / "texts.csv"))
        read = read_texts(spec, "classify", seed=0, normalization=Normalization(**settings), only="train")
        dataset, given = encode_texts(read, texts())
        examples = dataset.splits["train"]
        return ids(examples, plain_view(), dict.fromkeys(examples.ids, ""), given)

    changed = [one != other for one, other in zip(stored(), stored(lowercase=True), strict=True)]
    assert changed == [True, False, True, False]
