"""Real weights of a vision transformer: the answers that its ONNX file gives."""

import json

import keras
import numpy as np
import pytest
from test_backbones_real import crop

from tlkit import zoo
from tlkit.backbones import load
from tlkit.freezing import group_layers

from conftest import make_pictures

pytestmark = pytest.mark.real

# What onnxruntime 1.32 gives for chelsea, coffee and camera, center-cropped as in `crop`: the first five
# numbers of the class token, and of the patch in row 7, column 9.
CLASS_TOKENS = [
    [0.9635, 0.0510, 0.0810, -2.2569, 2.0646],
    [-0.1888, -0.7261, 0.5341, -2.2914, 0.1447],
    [-2.6357, 0.5044, 1.2668, -2.1283, 1.9154],
]
PATCHES = [
    [0.3986, 1.2179, -0.7955, -3.2961, 0.8634],
    [-1.0669, 1.6231, 1.1877, -2.6831, -1.4656],
    [0.1330, 3.9587, 1.6401, -2.1229, 1.2255],
]


@pytest.fixture(scope="module")
def photographs():
    data = pytest.importorskip("skimage.data", reason="the photographs come with scikit-image")
    return [data.chelsea(), data.coffee(), data.camera()]


@pytest.fixture(scope="module")
def backbone():
    return load("dinov2_vits14")


def test_the_vision_transformer_gives_the_known_answers(backbone, photographs):
    scaling = backbone.entry.input.scaling
    pictures = np.stack([crop(photograph, 224) for photograph in photographs])
    x = ((pictures - scaling.mean) / scaling.std).astype("float32")
    both = keras.Model(backbone.model.input, backbone.features)(x, training=False)
    # All numbers of all pictures differ by 1e-4 at most, at sizes up to 11; these are rounded to four digits.
    np.testing.assert_allclose(both["pooled"][:, :5], CLASS_TOKENS, atol=2e-4)
    np.testing.assert_allclose(both["map"][:, 7, 9, :5], PATCHES, atol=2e-4)


def test_its_parameters_and_blocks_are_those_of_the_entry(backbone):
    assert backbone.model.count_params() == zoo.get("dinov2_vits14").params
    groups = group_layers(backbone)
    assert [group.name for group in groups] == ["stem", *(f"block{n}" for n in range(1, 13)), "top"]
    assert all(group.cut is not None for group in groups)


@pytest.mark.slow
def test_it_is_fine_tuned_by_the_default_recipe(tmp_path):
    from tlkit import finetune

    pictures = make_pictures(tmp_path / "pictures", per_class=16, size=96)
    run = finetune(
        data=str(pictures), backbone="dinov2_vits14", image_size=98, epochs=1, out=tmp_path / "run"
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert run.config.head.pooling == "cls"
    assert all(stage["frozen_unchanged"] for stage in result["stages"])
    assert run.predict(str(pictures / "red" / "00.png"))["label"] in {"blue", "green", "red"}
