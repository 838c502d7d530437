"""Text backbones from Hugging Face folders: every family gives what PyTorch gives, can be cut and saved."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

from tlkit.backbones import load, source_folder
from tlkit.backbones.hugging_face_names import FAMILIES
from tlkit.backbones.keras_hub_text import CLASSES
from tlkit.config.architecture import ArchitectureConfig
from tlkit.errors import ConfigError, FetchError
from tlkit.freezing import group_layers
from tlkit.zoo.hugging_face import ARCHITECTURES, entry_of_folder

FIXTURES = Path(__file__).parent / "fixtures" / "text"
NAMES = sorted(FAMILIES)
POOLED = ("albert", "bert", "f_net")

# float32 on both sides: values below 8 are at most 4.8e-7 apart, sums of a few terms in another order are off
# by a few of that, and the random scales and weights of two blocks (most below 1) carry it on.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def backbones():
    return {name: load(entry_of_folder(FIXTURES / name)) for name in NAMES}


def expected_of(name):
    with np.load(FIXTURES / name / "expected.npz") as file:
        return dict(file)


def run(backbone, arrays, length=None):
    inputs = {name: arrays[name][:, :length] for name in backbone.model.input}
    return {name: values.numpy() for name, values in backbone.model(inputs, training=False).items()}


def test_every_family_is_known_everywhere():
    assert set(NAMES) == set(CLASSES) == {kind.family for kind in ARCHITECTURES.values()}


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_original_s(backbones, name):
    expected = expected_of(name)
    outputs = run(backbones[name], expected)
    assert set(outputs) == ({"sequence", "pooled"} if name in POOLED else {"sequence"})
    real = expected["padding_mask"] == 1 if backbones[name].entry.input.mask else slice(None)
    np.testing.assert_allclose(outputs["sequence"][real], expected["sequence"][real], rtol=0, atol=TOLERANCE)
    if name in POOLED:
        np.testing.assert_allclose(outputs["pooled"], expected["pooled"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "f_net"])
def test_padding_changes_nothing(backbones, name):
    expected = expected_of(name)
    longest = run(backbones[name], expected)["sequence"][1, :9]
    expected["token_ids"][1, 9:] = 7  # other padding
    np.testing.assert_allclose(run(backbones[name], expected)["sequence"][1, :9], longest, atol=TOLERANCE)
    shorter = run(backbones[name], {key: value[1:2] for key, value in expected.items()}, length=9)
    np.testing.assert_allclose(shorter["sequence"][0], longest, rtol=0, atol=TOLERANCE)


def test_a_backbone_without_a_mask_says_so(backbones):
    assert set(backbones["f_net"].model.input) == {"token_ids", "segment_ids"}
    assert not backbones["f_net"].entry.input.mask
    expected = expected_of("f_net")
    whole, cut = run(backbones["f_net"], expected), run(backbones["f_net"], expected, length=20)
    assert np.abs(whole["sequence"][:, :20] - cut["sequence"]).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_the_groups_hold_every_weight_and_the_entry_s_facts_are_true(backbones, name):
    backbone = backbones[name]
    entry, groups = backbone.entry, group_layers(backbone)
    blocks = ["block1"] if name == "albert" else ["block1", "block2"]
    assert [group.name for group in groups] == [
        "embeddings",
        *blocks,
        *(["pooler"] if name in POOLED else []),
    ]
    assert sorted(path for group in groups for path in group.weights) == sorted(
        weight.path for weight in backbone.model.weights
    )
    assert backbone.model.count_params() == entry.params
    assert set(backbone.model.input) == {
        "token_ids",
        *(["padding_mask"] if entry.input.mask else []),
        *(["segment_ids"] if entry.input.segments else []),
    }
    assert groups[len(blocks)].cut is backbone.features["sequence"]
    # DeBERTa's table of relative positions goes into every block beside the tokens.
    assert all((group.cut is None) == (name == "deberta_v3") for group in groups[: len(blocks)])


@pytest.mark.parametrize("name", NAMES)
def test_plain_keras_opens_a_saved_backbone(backbones, name, tmp_path):
    backbones[name].model.save(tmp_path / "backbone.keras")
    opened = keras.saving.load_model(tmp_path / "backbone.keras", safe_mode=True)
    expected = expected_of(name)
    inputs = {key: expected[key] for key in opened.input}
    for key, values in opened(inputs, training=False).items():
        np.testing.assert_array_equal(values, run(backbones[name], expected)[key])


@pytest.mark.parametrize("name", POOLED)
def test_without_pooler_nothing_else_changes(backbones, name):
    whole = backbones[name]
    bare = whole.without_pooler()
    assert list(bare.features) == ["sequence"]
    assert [group.name for group in group_layers(bare)] == list(whole.entry.layer_groups)[:-1]
    assert bare.entry.params == bare.model.count_params() == whole.entry.params - 8 * 9
    expected = expected_of(name)
    np.testing.assert_array_equal(run(bare, expected)["sequence"], run(whole, expected)["sequence"])
    assert bare.without_pooler() is bare
    again = load(bare.entry)
    assert list(again.features) == ["sequence"]


@pytest.mark.parametrize("name", NAMES)
def test_weights_can_be_left_out_and_drawn_by_a_seed(name):
    entry = entry_of_folder(FIXTURES / name)
    first, same, other = (load(entry, weights=False, seed=seed).model for seed in (1, 1, 2))
    assert [weight.path for weight in first.weights] == [weight.path for weight in other.weights]
    table = first.weights[0].path
    values = [next(np.array(w) for w in model.weights if w.path == table) for model in (first, same, other)]
    np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(values[0] - values[2]).max() > 0


def copy(name, folder, **changes):
    """A copy of a fixture with other keys in its config.json."""
    shutil.copytree(FIXTURES / name, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def shard(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in files.items():
        safetensors.numpy.save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in files.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def rewrite(folder, change):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    safetensors.numpy.save_file(change(tensors), folder / "model.safetensors")


def test_several_files_of_weights_are_read(backbones, tmp_path):
    folder = copy("bert", tmp_path / "bert")
    shard(folder)
    for ours, theirs in zip(
        load(entry_of_folder(folder)).model.get_weights(), backbones["bert"].model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_heads_prefixes_old_names_and_half_precision_are_understood(backbones, tmp_path):
    folder = copy("bert", tmp_path / "bert")

    def change(tensors):
        renamed = {f"bert.{name}": value for name, value in tensors.items()}
        norm = "bert.embeddings.LayerNorm."
        renamed[f"{norm}gamma"] = renamed.pop(f"{norm}weight")
        renamed[f"{norm}beta"] = renamed.pop(f"{norm}bias")
        renamed["cls.predictions.bias"] = np.zeros(70, "float32")
        return {name: value.astype("float16") for name, value in renamed.items()}

    rewrite(folder, change)
    for ours, theirs in zip(
        load(entry_of_folder(folder)).model.get_weights(), backbones["bert"].model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs.astype("float16").astype("float32"))


def test_a_folder_without_a_pooler_gives_none(tmp_path):
    folder = copy("bert", tmp_path / "bert")
    rewrite(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("pooler")})
    entry = entry_of_folder(folder)
    assert "pooler" not in entry.layer_groups
    assert list(load(entry).features) == ["sequence"]


def test_one_segment_s_embedding_is_part_of_every_token(tmp_path, backbones):
    folder = copy("roberta", tmp_path / "roberta")
    name = "embeddings.token_type_embeddings.weight"
    rewrite(folder, lambda tensors: {**tensors, name: tensors[name] + 3.0})
    before, after = (
        backbones["roberta"].model.get_weights()[1],
        load(entry_of_folder(folder)).model.get_weights()[1],
    )
    np.testing.assert_allclose(after - before, 3.0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "embeddings.word_embeddings.weight": t["embeddings.word_embeddings.weight"][:50]},
         r"'embeddings.word_embeddings.weight' in .* has the shape \(50, 8\); .* needs \(70, 8\)"),
        (lambda t: {k: v for k, v in t.items() if "layer.1.output.dense" not in k},
         r"lacks 2 tensors of a bert encoder, like 'encoder.layer.1.output.dense.bias'"),
        (lambda t: {**t, "encoder.layer.2.output.dense.bias": t["encoder.layer.1.output.dense.bias"]},
         r"holds 1 tensors that the encoder has no place for, like 'encoder.layer.2.output.dense.bias'"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_one_line(tmp_path, change, message):
    folder = copy("bert", tmp_path / "bert")
    rewrite(folder, change)
    with pytest.raises(FetchError, match=message) as caught:
        load(entry_of_folder(folder))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_of_weights_is_one_line(tmp_path):
    folder = copy("bert", tmp_path / "bert")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:2000])
    with pytest.raises(FetchError, match="is not a whole safetensors file"):
        load(entry_of_folder(folder))


def test_the_vocabulary_is_in_the_source_s_folder(backbones):
    entry = backbones["roberta"].entry
    assert source_folder(entry) == FIXTURES / "roberta"
    assert all((source_folder(entry) / name).is_file() for name in entry.input.tokenizer.files)
    with pytest.raises(ConfigError, match="'resnet50' brings no vocabulary"):
        source_folder("resnet50")


def test_what_a_pretrained_text_backbone_cannot_take_is_refused():
    entry = entry_of_folder(FIXTURES / "bert")
    with pytest.raises(ConfigError, match="'bert' is pretrained: its layers cannot be chosen"):
        load(entry, architecture=ArchitectureConfig(layers=3))
    with pytest.raises(ConfigError, match="sequence_length 41 does not fit 'bert': 1 to 40 tokens"):
        load(entry, sequence_length=41)
    with pytest.raises(ConfigError, match="'bert' knows 70 tokens, its tokenizer has 71"):
        load(entry, vocabulary_size=71)
    assert load(
        entry, weights=False, vocabulary_size=70, sequence_length=8, architecture=ArchitectureConfig()
    )
