"""Which outputs of a SavedModel are features, and what it says of those that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tlkit.backbones import Backbone, saved_model_layers
from tlkit.backbones.saved_model import describe_saved_model, load_saved_model
from tlkit.errors import ConfigError
from tlkit.zoo.source import HubSource

from saved_models import pictures

PICTURES = tf.TensorSpec((None, 8, 8, 3), tf.float32)


def vectors_of(pictures: Any) -> Any:
    return tf.reduce_mean(pictures, (1, 2))


def save(path: Path, answer: Callable[[Any, Any], Any], spec: tf.TensorSpec = PICTURES) -> Path:
    """A reusable one, whose answer is of the features (N, 6) and of the means (N, 3)."""
    module = tf.Module()
    module.weight = tf.Variable(tf.random.stateless_normal((3, 6), (1, 2)))
    module.__call__ = tf.function(
        lambda x: answer(vectors_of(x) @ module.weight, vectors_of(x)), input_signature=[spec]
    )
    tf.saved_model.save(module, str(path))
    return path


def backbone_of(path: Path, output: str | None = None) -> Backbone:
    source = HubSource(kind="hub", handle=str(path), output=output)
    return load_saved_model(describe_saved_model(source, "small"))


WITH_OTHERS = {
    "none": lambda features, means: {"feat": features, "nothing": None},
    "none_first": lambda features, means: {"feat": features, "a": None},
    "tuple": lambda features, means: (None, features),
    "ragged": lambda features, means: {"feat": features, "a": tf.RaggedTensor.from_tensor(means)},
    "sparse": lambda features, means: {"feat": features, "a": tf.sparse.from_dense(means)},
}


@pytest.mark.parametrize("kind", WITH_OTHERS)
def test_what_is_no_dense_tensor_is_no_feature_and_in_nobodys_way(kind, tmp_path):
    backbone = backbone_of(save(tmp_path / "saved", WITH_OTHERS[kind]))
    assert backbone.model(pictures(2, 8)).shape == (2, 6)
    assert len(backbone.model.trainable_variables) == 1
    layer = saved_model_layers(backbone.model)[0]
    assert list(layer.outputs.values()) == ["output_1" if kind == "tuple" else "feat"]


def test_an_output_beside_a_ragged_one_is_named_and_trained_alone(tmp_path):
    path = save(
        tmp_path / "saved",
        lambda features, means: {
            "a": tf.RaggedTensor.from_tensor(means),
            "feat": features,
            "means": means,
        },
    )
    assert len(backbone_of(path, "feat").model.trainable_variables) == 1
    assert len(backbone_of(path, "means").model.trainable_variables) == 0


@pytest.mark.parametrize(
    ("kind", "words"), [("ragged", r"ragged float32\[None, 3\]"), ("sparse", r"sparse float32\[None, 3\]")]
)
def test_a_ragged_or_sparse_output_is_told_what_it_is(kind, words, tmp_path):
    path = save(tmp_path / "saved", WITH_OTHERS[kind])
    with pytest.raises(ConfigError, match=rf"output 'a' .* is {words}: features are dense tensors"):
        backbone_of(path, "a")
    with pytest.raises(
        ConfigError, match=rf"has no output 'b'. It has: .*feat float32\[None, 6\], a {words}"
    ):
        backbone_of(path, "b")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda features, means: tf.reduce_sum(features, 1), r"float32\[None\]"),
        (lambda features, means: tf.cast(features, tf.int32), r"int32\[None, 6\]"),
    ],
)
def test_an_output_that_cannot_be_features_is_refused_named_or_not(answer, words, tmp_path):
    path = save(tmp_path / "saved", answer)
    with pytest.raises(ConfigError, match=f"gives nothing that can be features, .* → output {words}"):
        backbone_of(path)
    with pytest.raises(ConfigError, match=f"The output 'output' .* is {words}, which cannot be features"):
        backbone_of(path, "output")


def test_an_output_whose_rank_a_trial_has_to_tell_is_refused_then(tmp_path):
    path = save(tmp_path / "saved", lambda features, means: tf.reshape(features, _five_sides(features)))
    with pytest.raises(ConfigError, match="The output 'output' .*cannot be features"):
        backbone_of(path)


def _five_sides(features: Any) -> Any:
    """(N, 1, 1, 1, 6), in a way that leaves the rank unknown."""
    ones = tf.ones([3 + tf.cast(0.0 * tf.reduce_sum(features), tf.int32)], tf.int32)
    return tf.concat([tf.shape(features)[:1], ones, [6]], 0)


@pytest.mark.parametrize("output", ["words", "gone"])
def test_an_output_of_texts_that_is_named_has_to_fit(output, tmp_path):
    module = tf.Module()
    module.weight = tf.Variable(tf.ones((1, 4)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def call(texts: Any) -> Any:
        lengths = tf.strings.length(texts)[:, None]
        return {"vectors": tf.cast(lengths, tf.float32) @ module.weight, "words": lengths}

    module.__call__ = call
    tf.saved_model.save(module, str(tmp_path / "saved"))
    assert list(backbone_of(tmp_path / "saved", "vectors").features) == ["pooled"]
    words = "is int32.*cannot be features" if output == "words" else "has no output 'gone'"
    with pytest.raises(ConfigError, match=words):
        backbone_of(tmp_path / "saved", output)


def test_an_input_of_unknown_rank_is_one_line(tmp_path):
    path = save(tmp_path / "saved", lambda features, means: features, tf.TensorSpec(None, tf.float32))
    with pytest.raises(ConfigError, match=r"does not say what shape its input 'x' has \(float32\)"):
        backbone_of(path)


def test_of_several_signatures_the_message_says_how_to_choose_one(tmp_path):
    module = tf.Module()
    module.weight = tf.Variable(tf.random.stateless_normal((3, 6), (1, 2)))
    encode = tf.function(lambda x: {"vectors": vectors_of(x) @ module.weight}, input_signature=[PICTURES])
    classify = tf.function(lambda x: {"means": vectors_of(x)}, input_signature=[PICTURES])
    module.encode, module.classify = encode, classify
    tf.saved_model.save(module, str(tmp_path / "two"), signatures={"encode": encode, "classify": classify})
    with pytest.raises(ConfigError, match="has the signatures classify, encode, .*'serving_default': model"):
        backbone_of(tmp_path / "two")
    model = tf.saved_model.load(str(tmp_path / "two"))  # as the message says
    chosen = {"serving_default": model.signatures["encode"]}
    tf.saved_model.save(model, str(tmp_path / "one"), signatures=chosen)
    backbone = backbone_of(tmp_path / "one")
    assert backbone.model(pictures(2, 8)).shape == (2, 6)
    assert len(backbone.model.trainable_variables) == 1
    tf.saved_model.save(module, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="neither be called nor has it a signature: save it with one"):
        backbone_of(tmp_path / "none")
