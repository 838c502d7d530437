"""Real weights: the ImageNet classifiers know photographs whose class is known."""

import keras
import numpy as np
import pytest
from PIL import Image

from tlkit import zoo
from tlkit.backbones import load, load_classifier

pytestmark = pytest.mark.real

# ImageNet-1k class numbers.
TIGER_CAT, EGYPTIAN_CAT, ESPRESSO, TRIPOD, PALACE, HONEYCOMB, DAISY = 282, 285, 967, 872, 698, 599, 985

# Top-1 class and probability of the original PyTorch models for each photograph, center-cropped as in
# `crop`. Two digits after rounding, so within .005; another decoder of the two JPEGs moves them less.
KNOWN = {
    "efficientnet_lite0": [
        (TIGER_CAT, 0.39),
        (ESPRESSO, 0.95),
        (TRIPOD, 0.94),
        (PALACE, 0.31),
        (DAISY, 0.36),
    ],
    "efficientnet_lite1": [(EGYPTIAN_CAT, 0.42), (ESPRESSO, 0.52), (TRIPOD, 0.63), (PALACE, 0.57)],
    "efficientnet_lite2": [
        (EGYPTIAN_CAT, 0.62),
        (ESPRESSO, 0.89),
        (TRIPOD, 0.59),
        (PALACE, 0.38),
        (HONEYCOMB, 0.40),
    ],
    "mobilenet_v2_torchvision": [(EGYPTIAN_CAT, 0.66), (ESPRESSO, 0.99), (TRIPOD, 0.98), (PALACE, 0.62)],
}


@pytest.fixture(scope="module")
def photographs():
    """chelsea, coffee, camera, china.jpg and flower.jpg, as they ship with scikit-image and scikit-learn."""
    data = pytest.importorskip("skimage.data", reason="the photographs come with scikit-image")
    from sklearn.datasets import load_sample_image

    return [
        data.chelsea(),
        data.coffee(),
        data.camera(),
        load_sample_image("china.jpg"),
        load_sample_image("flower.jpg"),
    ]


def crop(photograph, size):
    """The middle seven eighths of the shorter side, bicubic: how these models are evaluated."""
    picture = Image.fromarray(photograph).convert("RGB")
    scale = int(size / 0.875) / min(picture.size)
    picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = [(side - size) // 2 for side in picture.size]
    return np.asarray(picture.crop((left, top, left + size, top + size)), "float32")


@pytest.mark.parametrize("name", KNOWN)
def test_the_classifier_gives_the_known_answers(name, photographs):
    entry = zoo.get(name)
    pictures = np.stack([crop(photograph, entry.input.image_size) for photograph in photographs])
    x = ((pictures - entry.input.scaling.mean) / entry.input.scaling.std).astype("float32")
    logits = load_classifier(entry)(x, training=False).numpy()
    assert logits.shape == (len(pictures), 1000)
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for score, (label, probability) in zip(scores, KNOWN[name], strict=False):
        assert score.argmax() == label
        assert score.max() == pytest.approx(probability, abs=0.01)


@pytest.mark.parametrize("name", KNOWN)
def test_the_backbone_has_the_classifier_s_weights_but_the_last(name):
    backbone, classifier = load(name, image_size=32), load_classifier(name, image_size=32)
    *body, _kernel, _bias = classifier.get_weights()
    for ours, theirs in zip(backbone.model.get_weights(), body, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_saved_backbone_opens_with_plain_keras(tmp_path):
    backbone = load("efficientnet_lite0", image_size=64)
    backbone.model.save(tmp_path / "backbone.keras")
    opened = keras.saving.load_model(tmp_path / "backbone.keras", safe_mode=True)
    assert {layer.__class__.__module__.split(".")[0] for layer in opened.layers} == {"keras"}
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(opened(x, training=False), backbone.model(x, training=False))
