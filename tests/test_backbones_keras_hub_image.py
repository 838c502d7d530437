"""KerasHub's image backbones: equal to KerasHub's own, divided into blocks, saved, loaded from presets."""

import json

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from small_keras_hub import ARGUMENTS, SIZE, keras_hub_model, small_entry
from test_backbones_zoo import check_cuts

from tlkit import zoo
from tlkit.backbones import image_features, load, load_classifier
from tlkit.backbones.keras_hub_describe import describe_keras_hub
from tlkit.backbones.keras_hub_image import IMAGE_BACKBONES, REBUILT, build_keras_hub_image
from tlkit.backbones.keras_hub_layer import KerasHubLayer
from tlkit.backbones.keras_hub_tokens import FAMILIES as TOKENS
from tlkit.backbones.patch_tokens import PatchTokens, resizing_matrix
from tlkit.config import HeadConfig, PreprocessingConfig
from tlkit.errors import ConfigError, FetchError
from tlkit.freezing import group_layers
from tlkit.heads import make_head
from tlkit.model import build_model
from tlkit.preprocessing import default_image_size, make_preprocessing
from tlkit.zoo.source import KerasHubSource

# KerasHub's own Swin gives its attention a mask as an argument, which Keras warns of.
pytestmark = pytest.mark.filterwarnings("ignore:[\\s\\S]*mask attached to it:UserWarning")

ENTRIES = [entry for entry in zoo.entries() if entry.constructor and entry.modality == "image"]
ENTRIES = [entry for entry in ENTRIES if entry.constructor.builder == "keras_hub_image"]
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
WITHOUT_CLASS_TOKEN = sorted(set(IMAGE_BACKBONES) - set(TOKENS))


def pictures(size=SIZE, count=2):
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype("float32")


def shake(model):
    """Random numbers in every weight: tokens and scales that start at 0 or 1 would hide a wrong order."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        if "seed" not in weight.path:
            values = random.normal(0.0, 0.2, weight.shape)
            weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def converter_for(backbone, **options):
    name = f"{backbone.removesuffix('Backbone')}ImageConverter"
    scale = [1 / std for std in IMAGENET["std"]]
    offset = [-mean / std for mean, std in zip(IMAGENET["mean"], IMAGENET["std"], strict=True)]
    options = {"image_size": (SIZE, SIZE), "scale": scale, "offset": offset, **options}
    return getattr(keras_hub.layers, name)(**options)


def save_preset(folder, backbone, *, model=None, converter=True, **options):
    whole = shake(keras_hub_model(backbone)) if model is None else model
    whole.save_to_preset(folder)
    if converter:
        converter_for(backbone, **options).save_to_preset(folder)
    return whole


def theirs(whole, x):
    """What KerasHub's own model says, as tlkit names it."""
    given = whole(dict.fromkeys(whole.input, x) if isinstance(whole.input, dict) else x, training=False)
    if isinstance(given, dict):
        given = given[max(name for name in given if name != "stem")]  # the last stage
    given = given.numpy()
    backbone = type(whole).__name__
    if given.ndim == 4:
        return {"map": given}
    prefix = 0
    if backbone in TOKENS:
        prefix = TOKENS[backbone].tokens + getattr(whole, "num_register_tokens", 0)
    side = round((given.shape[1] - prefix) ** 0.5)
    features = {"map": given[:, prefix:].reshape(len(given), side, side, -1)}
    return features | ({"pooled": given[:, 0]} if prefix else {})


# ------------------------------------------------------------------------------------------ architecture


@pytest.mark.parametrize("backbone", IMAGE_BACKBONES)
def test_every_layer_is_in_one_group_and_the_model_can_be_cut(backbone):
    built = load(small_entry(backbone), weights=False, seed=0)
    groups = group_layers(built)
    assert len(built.model.output.shape) == 4
    grouped = [path for group in groups for path in group.weights]
    assert sorted(grouped) == sorted(weight.path for weight in built.model.weights)
    assert groups[-1].cut is built.model.output
    check_cuts(built.model, groups)
    x, whole = pictures(), built.model(pictures(), training=False)
    assert np.isfinite(whole).all()
    assert sum(group.cut is not None for group in groups) >= 2
    cut = next(group.cut for group in reversed(groups[:-1]) if group.cut is not None)
    lower, upper = keras.Model(built.model.input, cut), keras.Model(cut, built.model.output)
    np.testing.assert_array_equal(upper(lower(x, training=False), training=False), whole)


@pytest.mark.parametrize("backbone", sorted(TOKENS))
def test_every_block_of_a_vision_transformer_is_a_group_with_a_cut(backbone):
    groups = group_layers(load(small_entry(backbone, num_layers=3), weights=False))
    assert [group.name for group in groups] == ["stem", "block1", "block2", "block3", "top"]
    assert all(group.cut is not None for group in groups)


@pytest.mark.parametrize("backbone", sorted(TOKENS))
@pytest.mark.parametrize("feature", ["map", "pooled"])
def test_a_rebuilt_model_is_saved_and_opened(backbone, feature, tmp_path):
    built = load(small_entry(backbone), weights=False).for_head(uses_pooler=feature == "pooled")
    shake(built.model).save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = pictures()
    np.testing.assert_array_equal(opened(x, training=False), built.model(x, training=False))


@pytest.mark.parametrize("backbone", WITHOUT_CLASS_TOKEN)
def test_the_others_are_saved_and_opened(backbone, tmp_path):
    model = load(small_entry(backbone), weights=False).model
    inputs = keras.Input(model.input_shape[1:])  # as one layer of a model, the way that runs hold it
    held = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(shake(model)(inputs)))
    held.save(tmp_path / "model.keras")
    opened = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = pictures()
    np.testing.assert_array_equal(opened(x, training=False), held(x, training=False))


def test_a_file_cannot_name_any_class_as_a_layer_of_keras_hub():
    with pytest.raises(ValueError, match="Unknown kind of layer: 'os.system'"):
        KerasHubLayer("os.system", {})


def test_an_unknown_backbone_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="CSPNetBackbone, .*received 'GemmaBackbone'"):
        build_keras_hub_image(32, backbone="GemmaBackbone")


def test_keras_hub_s_backbones_bring_no_classifier():
    with pytest.raises(ConfigError, match="'vit_b16' has no ImageNet classification top"):
        load_classifier("vit_b16")


# ------------------------------------------------------------------------------------- numbers of the zoo


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_parameters_are_those_that_keras_hub_states(entry):
    if entry.source.kind != "keras_hub":
        pytest.skip("not one of KerasHub's presets")
    arguments = entry.constructor.arguments
    stated = getattr(keras_hub.models, arguments["backbone"]).presets[entry.source.preset]["metadata"]
    left_out = {
        # The classifier is counted too: 1000 classes, or 10.
        "cspnet": lambda: 1000 * (arguments["stackwise_num_filters"][-1] + 1),
        "keras_hub_efficientnet": lambda: 1000 * (_top_filters(arguments) + 1),
        "keras_hub_resnet": lambda: 1000 * (_resnet_width(arguments) + 1) if _is_vd(arguments) else 0,
        "mit": lambda: 10 * (arguments["hidden_dims"][-1] + 1),
        # A token for masked training, and a second table of positions.
        "dinov2": lambda: arguments["hidden_dim"] * (1 + 1 + (518 // 14) ** 2),
    }.get(entry.family, lambda: 0)()
    # Stated without BatchNorm's statistics, or in millions.
    loosely = entry.family in ("cspnet", "dinov3", "keras_hub_efficientnet")
    assert entry.params == pytest.approx(stated["params"] - left_out, rel=0.02 if loosely else 0)


def _is_vd(arguments):
    return arguments["block_type"].endswith("_vd")


def _resnet_width(arguments):
    return arguments["stackwise_num_filters"][-1] * (4 if "bottleneck" in arguments["block_type"] else 1)


def _top_filters(arguments):
    width = arguments["stackwise_width_coefficients"][-1] * arguments.get("num_features", 1280)
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


# ----------------------------------------------------------------------------------------- position tables


@pytest.mark.parametrize("antialias", [False, True])
def test_resizing_keeps_a_table_of_the_right_size_and_constants(antialias):
    np.testing.assert_array_equal(resizing_matrix(5, 5, antialias), np.eye(5, dtype="float32"))
    for given, wanted in ((16, 7), (7, 16), (37, 16)):
        np.testing.assert_allclose(resizing_matrix(given, wanted, antialias).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("given", "wanted"), [(9, 4), (4, 9), (37, 16)])
def test_resizing_with_antialiasing_is_tensorflow_s(given, wanted):
    table = np.random.default_rng(0).normal(size=(given, given, 3)).astype("float32")
    matrix = resizing_matrix(given, wanted, antialias=True)
    expected = tf.image.resize(table[None], (wanted, wanted), "bicubic", antialias=True)[0]
    # Sums of up to 37 × 37 products of float32: about 1e-6 at these magnitudes.
    np.testing.assert_allclose(np.einsum("hi,ijc,wj->hwc", matrix, table, matrix), expected, atol=5e-6)


def test_resizing_without_antialiasing_is_pytorch_s():
    # torch.nn.functional.interpolate(ramp, size, mode="bicubic") of 0, 1, 4, 9, 16, on PyTorch 2.13.
    squares = np.arange(5, dtype="float32") ** 2
    np.testing.assert_allclose(
        resizing_matrix(5, 3, False) @ squares, [0.14814901, 4.0, 14.07407093], atol=1e-5
    )
    expected = [-0.07871747, 0.26530659, 1.68221712, 4.0, 7.04664707, 12.46355343, 16.55102730]
    np.testing.assert_allclose(resizing_matrix(5, 7, False) @ squares, expected, atol=1e-5)


@pytest.mark.parametrize("backbone", ["DINOV2Backbone", "DeiTBackbone", "ViTBackbone"])
@pytest.mark.parametrize("size", [16, 48])
def test_pictures_of_another_size_have_as_many_parameters(backbone, size):
    own, other = (load(small_entry(backbone), weights=False, image_size=side) for side in (SIZE, size))
    assert own.model.count_params() == other.model.count_params() == own.entry.params
    other.model.set_weights(own.model.get_weights())
    assert other.model(pictures(size), training=False).shape == (2, size // 8, size // 8, 16)
    assert np.isfinite(other.model(pictures(size), training=False)).all()


def test_positions_are_learned_through_the_resizing():
    layer = PatchTokens(4, 6, position_grid=3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(pictures(8)) ** 2)
    gradient = tape.gradient(loss, layer.positions.value)
    assert layer(pictures(8)).shape == (2, 5, 6)
    assert np.abs(gradient).min(axis=-1).max() > 0


def test_a_size_that_is_not_a_multiple_of_the_patches_is_refused_with_those_that_are():
    entry = zoo.get("dinov2_small")
    with pytest.raises(ConfigError, match="multiples of 14 pixels, received 96. Use 84 or 98"):
        make_preprocessing(entry.input, PreprocessingConfig(image_size=96))
    with pytest.raises(ConfigError, match="image_size 96 does not fit 'dinov2_small': .* multiple of 14"):
        load(entry, weights=False, image_size=96)
    assert default_image_size(entry.input, 8) == 70  # not 64
    assert default_image_size(entry.input, None) == 224


# ------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize(("pooling", "shape"), [("avg", (None, 4, 4, 16)), ("cls", (None, 16))])
def test_a_head_reads_the_map_or_the_class_token(pooling, shape):
    backbone = load(small_entry("ViTBackbone"), weights=False)
    head = make_head(HeadConfig(pooling=pooling), "classify", n_outputs=3)
    chosen = backbone.for_head(head.uses_pooler)
    assert chosen.model.output.shape == shape
    assert build_model(chosen, head).output.shape == (None, 3)
    assert [group.name for group in group_layers(chosen)] == list(backbone.entry.layer_groups)


def test_a_backbone_without_a_class_token_says_so():
    backbone = load(small_entry("VGGBackbone"), weights=False)
    head = make_head(HeadConfig(pooling="cls"), "classify", n_outputs=3)
    with pytest.raises(ConfigError, match="'cls' does not fit .* Allowed: auto, avg, max, avg_max"):
        build_model(backbone.for_head(head.uses_pooler), head)


def test_a_model_of_vectors_is_read_as_it_is():
    backbone = load(small_entry("ViTBackbone"), weights=False).for_head(uses_pooler=True)
    assert image_features(backbone.model) == {"pooled": backbone.model.output}
    head = make_head(HeadConfig(), "classify", n_outputs=3)
    assert build_model(backbone.for_head(head.uses_pooler), head).output.shape == (None, 3)
    head = make_head(HeadConfig(pooling="max"), "classify", n_outputs=3)
    with pytest.raises(ConfigError, match="'max' does not fit .* Allowed: auto, cls"):
        build_model(backbone.for_head(head.uses_pooler), head)


# ------------------------------------------------------------------------------------------------ presets


@pytest.mark.parametrize("backbone", IMAGE_BACKBONES)
def test_a_preset_is_described_and_loaded_with_equal_outputs(backbone, tmp_path):
    whole = save_preset(tmp_path / "preset", backbone, crop_to_aspect_ratio=False)
    source = KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset"))
    entry = describe_keras_hub(source, "mine")
    assert (entry.name, entry.modality, entry.source, entry.verified) == ("mine", "image", source, False)
    assert entry.input.image_size == SIZE
    np.testing.assert_allclose(entry.input.scaling.mean, IMAGENET["mean"], rtol=1e-6)
    np.testing.assert_allclose(entry.input.scaling.std, IMAGENET["std"], rtol=1e-6)
    loaded = load(entry)
    assert loaded.model.count_params() == entry.params
    group_layers(loaded)
    x = pictures()
    expected = theirs(whole, x)
    assert set(loaded.features) == set(expected)
    for name, value in expected.items():
        ours = loaded.for_head(uses_pooler=name == "pooled").model(x, training=False)
        # The same operations in the same order, so up to float32's own noise at the outputs' size.
        np.testing.assert_allclose(ours, value, atol=1e-6 * max(1, np.abs(value).max()))


def test_an_entry_can_be_written_down_and_read_again(tmp_path):
    save_preset(tmp_path / "preset", "SwinTransformerBackbone")
    entry = describe_keras_hub(KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset")), "mine")
    fields = json.loads(json.dumps(entry.to_dict()))
    assert type(entry).model_validate(fields) == entry


@pytest.fixture(scope="module")
def photograph():
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg")[:, :500]  # (427, 500, 3)


@pytest.mark.parametrize(
    ("options", "fit"),
    [
        ({"crop_to_aspect_ratio": True}, "crop"),
        ({"crop_to_aspect_ratio": False}, "stretch"),
    ],
    ids=["crop", "stretch"],
)
@pytest.mark.parametrize(
    ("interpolation", "antialias"),
    [("bilinear", False), ("bilinear", True), ("bicubic", True), ("nearest", False), ("lanczos3", False)],
)
def test_preprocessing_is_keras_hub_s(options, fit, interpolation, antialias, photograph, tmp_path):
    options = {"image_size": (90, 90), "interpolation": interpolation, "antialias": antialias, **options}
    save_preset(tmp_path / "preset", "VGGBackbone", **options)
    entry = describe_keras_hub(KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset")), "mine")
    ours = make_preprocessing(entry.input, PreprocessingConfig(augment="none"))
    assert (ours.image_size, ours.resize) == (90, fit)
    got = ours.encode(ours.resize_batch(tf.constant(photograph[None])))[0].numpy()
    expected = np.asarray(keras_hub.layers.ImageConverter.from_preset(str(tmp_path / "preset"))(photograph))
    # Both round to whole numbers of 0 to 255 before they scale; a tie may round either way.
    step = 1 / np.array(IMAGENET["std"])
    difference = np.abs(got - expected) / step
    assert difference.max() < 1.01
    assert (difference > 0.01).mean() < 0.001


def test_a_preset_that_pads_says_how_tlkit_s_padding_differs(tmp_path):
    save_preset(tmp_path / "preset", "VGGBackbone", crop_to_aspect_ratio=False, pad_to_aspect_ratio=True)
    entry = describe_keras_hub(KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset")), "mine")
    assert entry.input.resizing.fit == "pad"
    assert "before it scales it" in entry.notes[0]


def test_the_config_s_way_of_resizing_wins(tmp_path):
    save_preset(tmp_path / "preset", "VGGBackbone", interpolation="bicubic")
    entry = describe_keras_hub(KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset")), "mine")
    ours = make_preprocessing(entry.input, PreprocessingConfig(resize="pad"))
    assert (ours.resize, ours.resizing.interpolation, entry.input.resizing.fit) == ("pad", "bicubic", "crop")


def test_a_preset_that_does_not_say_how_pictures_are_scaled_needs_a_scaling(tmp_path):
    save_preset(tmp_path / "preset", "VGGBackbone", converter=False)
    source = KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset"))
    with pytest.raises(ConfigError, match="does not say how pictures are scaled"):
        describe_keras_hub(source, "mine")
    scaling = zoo.get("vgg11").input.scaling
    assert describe_keras_hub(source, "mine", scaling=scaling, image_size=64).input.image_size == 64


def test_a_preset_that_contradicts_its_entry_is_refused(tmp_path):
    save_preset(tmp_path / "preset", "ViTBackbone", scale=[1 / 127.5] * 3, offset=[-1.0] * 3)
    source = KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset"))
    entry = describe_keras_hub(source, "mine")
    changed = entry.input.model_copy(update={"scaling": zoo.get("vgg11").input.scaling})
    with pytest.raises(ConfigError, match="scales pictures with mean .127.5.* its zoo entry says .123.675"):
        load(entry.model_copy(update={"input": changed}))
    arguments = {**entry.constructor.arguments, "num_heads": 4}
    constructor = entry.constructor.model_copy(update={"arguments": arguments})
    with pytest.raises(ConfigError, match="num_heads is 2, the entry has 4"):
        load(entry.model_copy(update={"constructor": constructor}))
    save_preset(tmp_path / "other", "VGGBackbone")
    other = source.model_copy(update={"preset": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match="entry says ViTBackbone|not a subclass"):
        load(entry.model_copy(update={"source": other}))


def test_pictures_that_are_not_square_are_refused(tmp_path):
    save_preset(tmp_path / "preset", "VGGBackbone", image_size=(32, 48))
    with pytest.raises(ConfigError, match=r"pictures of \(32, 48\) pixels; tlkit's are square"):
        describe_keras_hub(KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset")), "mine")


def test_a_preset_of_another_kind_of_model_is_refused(tmp_path):
    keras_hub.models.CLIPVisionEncoder(
        patch_size=8, hidden_dim=8, num_layers=1, num_heads=1, intermediate_dim=8, image_shape=(16, 16, 3)
    ).save_to_preset(tmp_path / "preset")
    with pytest.raises(ConfigError, match="is a CLIPVisionEncoder, which is not a backbone that tlkit knows"):
        describe_keras_hub(KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset")), "mine")


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "{}",
        '{"registered_name": "keras_hub>ViTBackbone"}',
        '{"registered_name": "os>system", "config": {}}',
    ],
)
def test_a_damaged_preset_is_one_line(config, tmp_path):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises((ConfigError, FetchError), match="refuse|JSON") as caught:
        describe_keras_hub(KerasHubSource(kind="keras_hub", preset=str(tmp_path)), "mine")
    assert "\n" not in str(caught.value)


def test_a_preset_without_a_network_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    with pytest.raises(FetchError, match="resnet_18_imagenet is not in the cache folder, nor in KerasHub"):
        load("resnet18", image_size=32)
    with pytest.raises(FetchError, match="which TLKIT_OFFLINE forbids"):
        describe_keras_hub(KerasHubSource(kind="keras_hub", preset="hf://timm/resnet18.a1_in1k"), "mine")


def test_a_preset_of_texts_is_described_and_loaded(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    whole = keras_hub.models.BertBackbone(
        vocabulary_size=7,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        max_sequence_length=20,
    )
    whole.save_to_preset(tmp_path / "preset")
    keras_hub.models.BertTokenizer(words, lowercase=True).save_to_preset(tmp_path / "preset")
    entry = describe_keras_hub(KerasHubSource(kind="keras_hub", preset=str(tmp_path / "preset")), "mine")
    assert (entry.modality, entry.family, entry.input.sequence_length) == ("text", "bert", 20)
    assert entry.input.tokenizer.lowercase
    assert not entry.input.tokenizer.strip_accents
    backbone = load(entry)
    assert backbone.model.count_params() == entry.params
    assert [group.name for group in group_layers(backbone)] == ["embeddings", "block1", "block2", "pooler"]


def test_every_class_of_the_table_has_a_small_member_here():
    assert set(ARGUMENTS) == set(IMAGE_BACKBONES) >= set(REBUILT)
