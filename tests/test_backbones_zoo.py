"""The contract of every image entry: it builds without weights, and its facts are true."""

import gc
import math
import sys

import keras
import numpy as np
import pytest

from tlkit import zoo
from tlkit.backbones import load
from tlkit.backbones.graph import calls_of
from tlkit.freezing import group_layers
from tlkit.zoo.entry import Scaling

# Parameters. Above, an entry takes too much time for every run; the smallest of its family may have more.
LARGE, LARGE_FAMILY = 20_000_000, 60_000_000

IMAGES = [entry for entry in zoo.entries() if entry.modality == "image"]
SMALLEST = [  # of each family
    entry
    for entry in sorted(IMAGES, key=lambda entry: -entry.params)
    if entry.params == min(other.params for other in IMAGES if other.family == entry.family)
]
ENTRIES = [
    pytest.param(
        entry,
        id=entry.name,
        marks=[pytest.mark.slow] if entry.params > (LARGE_FAMILY if entry in SMALLEST else LARGE) else [],
    )
    for entry in IMAGES
]
FAMILIES = [
    pytest.param(entry, id=entry.family, marks=[pytest.mark.slow] if entry.params > LARGE_FAMILY / 2 else [])
    for entry in SMALLEST
]
KERAS = [entry for entry in zoo.entries() if entry.source.kind == "keras"]


def allowed_size(entry, wanted):
    """The least size of pictures that a backbone takes and that is not below `wanted`."""
    least, step = max(entry.input.min_image_size, wanted), entry.input.multiple_of
    return math.ceil(least / step) * step


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_builds_and_its_groups_hold_every_layer_once(entry):
    backbone = load(entry, weights=False, image_size=entry.input.min_image_size)
    groups = group_layers(backbone)
    model = backbone.model
    assert model.count_params() == entry.params
    assert len(model.output.shape) == 4
    assert [group.name for group in groups] == list(entry.layer_groups)
    assert len(groups) >= 3
    grouped = [path for group in groups for path in group.weights]
    assert sorted(grouped) == sorted(weight.path for weight in model.weights)
    layers = [id(layer) for group in groups for layer in group.layers]
    assert len(layers) == len(set(layers))
    assert groups[-1].cut is model.output
    check_cuts(model, groups)
    if entry.source.kind == "keras":
        scales_itself = any(
            isinstance(x, keras.layers.Rescaling | keras.layers.Normalization) for x in model.layers
        )
        assert scales_itself == (entry.input.scaling == Scaling())
    del backbone, groups, model
    gc.collect()


def check_cuts(model, groups):
    """A cut depends on every group up to its own and on none above: a second, independent reading."""
    below = {}
    for call in calls_of(model):
        inner = call.operation.layers if isinstance(call.operation, keras.Model) else [call.operation]
        own = {weight.path for layer in inner for weight in getattr(layer, "weights", ())}
        for tensor in call.outputs:
            below[id(tensor)] = own.union(*(below[id(needed)] for needed in call.inputs))
    expected = set()
    for group in groups:
        expected |= set(group.weights)
        if group.cut is not None:
            assert below[id(group.cut)] == expected


@pytest.mark.parametrize("entry", KERAS, ids=lambda entry: entry.name)
def test_the_scaling_is_what_keras_does(entry):
    module = sys.modules[getattr(keras.applications, entry.constructor.arguments["application"]).__module__]
    x = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    scaling = entry.input.scaling
    ordered = x[..., ::-1] if scaling.order == "bgr" else x
    ours = (ordered - np.array(scaling.mean)) / np.array(scaling.std)
    # float32 on both sides: 255 rounds to 1.5e-5, and dividing by a standard deviation only shrinks it.
    np.testing.assert_allclose(ours, module.preprocess_input(x.copy()), atol=3e-5)


@pytest.mark.parametrize("entry", FAMILIES)
def test_a_family_gives_finite_features_and_can_be_cut_in_two(entry):
    backbone = load(entry, weights=False, image_size=allowed_size(entry, 64), seed=0)
    size = backbone.model.input.shape[1]
    x = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype("float32")
    whole = backbone.model(x, training=False)
    assert np.isfinite(whole).all()
    cut = next((group.cut for group in reversed(group_layers(backbone)[:-1]) if group.cut is not None), None)
    if cut is None:
        return
    lower, upper = keras.Model(backbone.model.input, cut), keras.Model(cut, backbone.model.output)
    np.testing.assert_array_equal(upper(lower(x, training=False), training=False), whole)
