"""Keras models of one's own as backbones, given in Python or as a file."""

import keras
import numpy as np
import pytest
from test_backbones_zoo import check_cuts

import tlkit
from tlkit import zoo
from tlkit.backbones import describe, load
from tlkit.backbones.grouping import MOST_GROUPS, entries_that_fit, propose_groups
from tlkit.config.scaling import SCALINGS, make_scaling
from tlkit.errors import ConfigError, FetchError
from tlkit.freezing import group_layers
from tlkit.zoo.reference import parse_reference

from conftest import make_pictures
from small_models import own_body, own_model

SIZE = 32
# Those whose blocks join in unlike ways; the others are slow.
CLASSIC = ["densenet121", "inception_v3", "mobilenet_v2"]
MORE_CLASSIC = ["convnext_tiny", "resnet50", "vgg16", "xception"]
KNOWN, MORE_KNOWN = ["mobilenet_v2", "vgg16"], ["densenet121", "efficientnet_b0", "resnet50"]


def pictures(n=2, size=SIZE):
    return np.random.default_rng(0).uniform(0, 255, (n, size, size, 3)).astype("float32")


def map_of(model, x):
    """What the last map of `own_model` is."""
    return keras.Model(model.input, model.get_layer("unit3_pool").output)(x, training=False)


def test_a_model_is_cut_below_its_head_and_copied():
    model = own_model()
    backbone = load(model)
    np.testing.assert_array_equal(backbone.model(pictures(), training=False), map_of(model, pictures()))
    assert backbone.features == {"map": backbone.model.output}
    assert backbone.entry.source.kind == "model"
    assert backbone.entry.params == backbone.model.count_params()
    backbone.model.set_weights([np.zeros_like(weight) for weight in backbone.model.get_weights()])
    assert np.abs(map_of(model, pictures())).max() > 0, "the user's own model must not change"


def test_a_path_is_a_path_and_what_is_no_backbone_is_one_line(tmp_path):
    own_model().save(tmp_path / "mine.keras")
    assert load(tmp_path / "mine.keras").entry.source.path == str(tmp_path / "mine.keras")
    for nothing in (5, None, [own_model()]):
        with pytest.raises(ConfigError, match="A backbone is a zoo name .*, received") as caught:
            load(nothing)
        assert "\n" not in str(caught.value)


def test_its_groups_hold_every_layer_once_and_have_cuts():
    backbone = load(own_model())
    groups = group_layers(backbone)
    assert [group.name for group in groups] == ["stem", "block1", "block2", "block3", "block4"]
    assert backbone.entry.layer_groups["block2"] == r"unit1_.*"
    assert all(group.cut is not None for group in groups)
    check_cuts(backbone.model, groups)


def test_a_deep_model_gets_few_groups_of_like_depth():
    groups = group_layers(load(own_model(blocks=40)))
    assert len(groups) == MOST_GROUPS
    sizes = [len(group.layers) for group in groups]
    assert max(sizes) - min(sizes) <= 4


def those_and_more(those, more):
    return [*those, *(pytest.param(name, marks=pytest.mark.slow) for name in more)]


@pytest.mark.parametrize("name", those_and_more(CLASSIC, MORE_CLASSIC))
def test_groups_are_proposed_for_any_architecture(name):
    backbone = load(name, weights=False, image_size=zoo.get(name).input.min_image_size)
    groups = propose_groups(backbone.model)
    entry = backbone.entry.model_copy(update={"layer_groups": groups})
    found = group_layers(type(backbone)(entry, backbone.model, backbone.features))
    assert len(found) >= 5
    assert sum(group.cut is not None for group in found) >= 5
    check_cuts(backbone.model, found)


def test_a_layer_that_is_called_twice_is_in_one_group():
    inputs = x = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 1, name="first")(x)
    shared = keras.layers.Conv2D(4, 1, name="shared")
    x = keras.layers.Conv2D(4, 1, name="between")(shared(x))
    x = keras.layers.Conv2D(4, 1, name="last")(shared(x))
    backbone = load(keras.Model(inputs, x, name="twice"))
    assert list(backbone.entry.layer_groups.values()) == ["first", "shared|between", "last"]
    assert len(group_layers(backbone)) == 3


@pytest.mark.parametrize("name", those_and_more(KNOWN, MORE_KNOWN))
def test_a_model_of_keras_applications_is_recognised(name):
    given = load(name, weights=False, image_size=SIZE).model
    entry = load(given).entry
    known = zoo.get(name)
    assert (entry.family, entry.layer_groups) == (known.family, known.layer_groups)
    assert entry.input.scaling == known.input.scaling
    assert known in entries_that_fit(given)


def test_scaling_is_left_to_the_model_that_does_it_itself():
    entry = load(own_model(rescaling=True)).entry
    assert entry.input.scaling == SCALINGS["raw"]
    assert entry.notes == ("scaling: the model does its own, from 0–255 ('to_range')",)
    inputs = keras.Input((SIZE, SIZE, 3))
    scaled = keras.applications.mobilenet_v2.preprocess_input(inputs)
    entry = load(keras.Model(inputs, own_body(scaled), name="with_function")).entry
    assert entry.input.scaling == SCALINGS["raw"]
    assert entry.notes[0].startswith("scaling: the model does its own")


def test_an_unknown_scaling_is_said_to_be_assumed_and_can_be_told():
    entry = load(own_model()).entry
    assert entry.input.scaling == SCALINGS["raw"]
    assert "assumed to be none (0–255)" in entry.notes[0]
    assert "preprocessing.scaling=" in entry.notes[0]
    told = load(own_model(), scaling=SCALINGS["symmetric"]).entry
    assert told.input.scaling.mean == (127.5, 127.5, 127.5)
    assert told.notes == ()


def test_models_inside_a_model_are_opened():
    """The recipe of Keras's own guide: augmentation and scaling, a backbone in one layer, a head."""
    inner = own_model(head=False)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.Sequential([keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)], name="before")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(inner(x, training=False))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled), name="guide")
    backbone = load(model)
    assert not any(isinstance(layer, keras.Model) for layer in backbone.model.layers)
    assert [group.cut is not None for group in group_layers(backbone)] == [True] * 5
    expected = inner(pictures() / 255, training=False)
    np.testing.assert_allclose(backbone.model(pictures(), training=False), expected, atol=1e-5)


def test_a_sequential_model_will_do():
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), own_model(head=False), keras.layers.Flatten()])
    assert load(model).model.output.shape == (None, 8, 8, 4)


def test_names_that_are_there_twice_keep_a_model_closed():
    first, second = own_model(head=False), own_model(head=False, rescaling=False)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(3, 1, name="adapter")(first(inputs))
    resized = keras.layers.UpSampling2D(4)(x)
    second = keras.Model(second.input, second.output, name="second")
    backbone = load(keras.Model(inputs, second(resized), name="double"))
    groups = group_layers(backbone)
    assert backbone.entry.layer_groups == {"stem": "mine/.*", "block1": "adapter", "block2": "second/.*"}
    assert len(groups) == 3


def test_a_model_of_any_size_gets_one():
    model = own_model(size=None)
    backbone = load(model)
    assert backbone.model.input.shape == (None, 224, 224, 3)
    assert "image_size: 224 pixels are assumed, the model takes any" in backbone.entry.notes
    backbone = load(model, image_size=64)
    assert backbone.model.output.shape == (None, 16, 16, 4)
    x = pictures(size=64)
    np.testing.assert_allclose(backbone.model(x, training=False), map_of(model, x), atol=1e-5)


def test_another_size_than_the_model_s_is_refused():
    with pytest.raises(ConfigError, match="takes pictures of 32 pixels only, received image_size 64"):
        load(own_model(), image_size=64)


def flat(inputs):
    return keras.layers.Flatten()(inputs)


@pytest.mark.parametrize(
    ("shape", "build", "message"),
    [
        ((SIZE, SIZE, 1), own_body, "not square pictures"),
        ((SIZE, 2 * SIZE, 3), own_body, "not square pictures"),
        ((8,), keras.layers.Dense(2), "not square pictures"),
        ((SIZE, SIZE, 3), flat, "has no 4-D tensor to take features from"),
        ((SIZE, SIZE, 3), lambda x: [own_body(x), own_body(x)], "2 outputs: name the layer|used 2 times"),
    ],
)
def test_a_model_that_is_no_backbone_is_refused(shape, build, message):
    inputs = keras.Input(shape)
    try:
        model = keras.Model(inputs, build(inputs))
    except ValueError:
        inputs = keras.Input(shape)
        x = own_body(inputs)
        model = keras.Model(inputs, [x, keras.layers.ReLU()(x)])
    with pytest.raises(ConfigError, match=message):
        load(model)


def test_a_transformer_is_not_cut_at_its_patches():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Reshape((16, 8))(keras.layers.Conv2D(8, 8, strides=8)(inputs))
    for _ in range(4):
        x = keras.layers.Add()([x, keras.layers.MultiHeadAttention(2, 4)(x, x)])
    with pytest.raises(ConfigError, match="4 layers with weights above its last feature map"):
        load(keras.Model(inputs, x))


def test_what_could_not_be_opened_again_is_refused_before_training():
    inputs = keras.Input((SIZE, SIZE, 3))
    scaled = keras.layers.Lambda(lambda x: x / 255)(inputs)
    with pytest.raises(
        ConfigError, match="cannot be copied, nor kept in a file.*Lambda layer holds code"
    ) as caught:
        load(keras.Model(inputs, own_body(scaled)))
    assert "\n" not in str(caught.value)

    class Unregistered(keras.layers.Layer):
        def call(self, x):
            return x

    with pytest.raises(ConfigError, match=r"@keras.saving.register_keras_serializable\(\)"):
        load(keras.Model(inputs, own_body(Unregistered()(inputs))))

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ConfigError, match="not a functional Keras model|cannot be copied"):
        load(Subclassed())


def test_a_model_without_its_weights_is_refused():
    with pytest.raises(ConfigError, match="whose weights are its own"):
        load(own_model(), weights=False)


def test_a_path_of_a_keras_file_is_a_reference(tmp_path):
    model = own_model()
    model.save(tmp_path / "mine.keras")
    backbone = load(str(tmp_path / "mine.keras"))
    assert backbone.entry.name == "mine"
    assert backbone.entry.source.sha256 is not None
    np.testing.assert_array_equal(backbone.model(pictures(), training=False), map_of(model, pictures()))
    assert load(backbone.entry).entry == backbone.entry
    assert len(group_layers(backbone)) == 5


def test_the_output_of_a_file_can_be_named(tmp_path):
    own_model().save(tmp_path / "mine.keras")
    source = parse_reference(str(tmp_path / "mine.keras")).model_copy(update={"output": "unit1_add"})
    entry = describe(source, "lower")
    assert load(entry).model.output.shape == (None, SIZE, SIZE, 4)
    assert list(entry.layer_groups) == ["stem", "block1", "block2"]


def test_a_file_that_changed_is_refused(tmp_path):
    own_model().save(tmp_path / "mine.keras")
    entry = load(str(tmp_path / "mine.keras")).entry
    own_model(blocks=2).save(tmp_path / "mine.keras")
    with pytest.raises(FetchError, match="sha256"):
        load(entry)


def test_weights_alone_say_how_they_become_a_backbone(tmp_path):
    own_model().save_weights(tmp_path / "mine.weights.h5")
    with pytest.raises(ConfigError, match="holds weights alone: say of what"):
        load(str(tmp_path / "mine.weights.h5"))


@pytest.mark.parametrize("value", ["unit", {"std": [255, 255, 255]}])
def test_a_scaling_has_a_name_or_numbers(value):
    assert make_scaling(value) == SCALINGS["unit"]


def test_a_wrong_scaling_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'imagenet'"):
        make_scaling("imagnet")
    with pytest.raises(ConfigError, match="preprocessing.scaling: unknown scaling 'imagnet'. Did you mean"):
        tlkit.load_config({"preprocessing": {"scaling": "imagnet"}})
    with pytest.raises(ConfigError, match=r"preprocessing.scaling.*std"):
        tlkit.load_config({"preprocessing": {"scaling": {"std": [0, 1, 1]}}})


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


SETTINGS = {"batch_size": 12, "epochs": 1, "plan": "top"}


def test_a_model_is_fine_tuned_and_its_run_needs_it_no_more(photos, tmp_path):
    model = own_model()
    before = model.get_weights()
    scaling = {"scaling": "symmetric"}
    run = tlkit.finetune(photos, model, preprocessing=scaling, out=tmp_path / "run", export=False, **SETTINGS)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert run.entry.input.scaling == SCALINGS["symmetric"]
    assert run.config.backbone == "python:mine"
    assert run.config.python == ("backbone",)
    del model
    again = tlkit.load(run.path)
    assert again.predict(photos / "red" / "00.png") == run.predict(photos / "red" / "00.png")
    assert again.evaluate()
    assert again.export(tmp_path / "exported").is_dir()
    second = tlkit.finetune(photos, again, out=tmp_path / "second", export=False, **SETTINGS)
    assert second.entry.name == "mine"
    with pytest.raises(ConfigError, match="was a Keras model in Python.*Pass it again"):
        tlkit.finetune(photos, config=run.folder.config, out=tmp_path / "third")


def test_a_file_is_fine_tuned_and_its_run_needs_it_no_more(photos, tmp_path, capsys):
    own_model().save(tmp_path / "mine.keras")
    run = tlkit.finetune(photos, tmp_path / "mine.keras", out=tmp_path / "run", export=False, **SETTINGS)
    assert "mine: scaling: assumed to be none (0–255)" in capsys.readouterr().err
    (tmp_path / "mine.keras").unlink()
    again = tlkit.load(run.path)
    assert again.predict(photos / "red" / "00.png") == run.predict(photos / "red" / "00.png")
    assert again.export(tmp_path / "exported").is_dir()
    second = tlkit.finetune(photos, run, out=tmp_path / "second", export=False, **SETTINGS)
    assert second.entry.source.path == str(tmp_path / "mine.keras")
    with pytest.raises(ConfigError, match="takes pictures of 32 pixels only, received 64"):
        tlkit.finetune(photos, run, image_size=64, out=tmp_path / "third")
