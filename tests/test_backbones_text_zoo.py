"""The contract of every text entry: it builds without weights, and its facts are true."""

import gc
import json

import keras_hub
import numpy as np
import pytest
from test_backbones_zoo import check_cuts

from tlkit import zoo
from tlkit.backbones import load, source_folder
from tlkit.backbones.keras_hub_preset import preset_vocabulary
from tlkit.config.architecture import ArchitectureConfig
from tlkit.errors import ConfigError, FetchError
from tlkit.freezing import group_layers
from tlkit.zoo.registry import expand_groups, family_fields
from tlkit.zoo.text_parameters import count_parameters

LARGE = 40_000_000  # parameters; above, an entry takes too much memory and time for every run

TEXTS = [entry for entry in zoo.entries() if entry.modality == "text"]
BUILT = [
    pytest.param(entry, id=entry.name, marks=[pytest.mark.slow] if entry.params > LARGE else [])
    for entry in TEXTS
]
PRETRAINED = [entry for entry in TEXTS if entry.kind != "scratch"]
PRESETS = [entry for entry in TEXTS if entry.source.kind == "keras_hub"]


@pytest.mark.parametrize("entry", BUILT)
def test_a_text_entry_builds_and_its_groups_hold_every_layer_once(entry):
    backbone = load(entry, weights=False)
    groups = group_layers(backbone)
    model = backbone.model
    assert model.count_params() == entry.params
    assert [group.name for group in groups] == list(entry.layer_groups)
    grouped = [path for group in groups for path in group.weights]
    assert sorted(grouped) == sorted(weight.path for weight in model.weights)
    assert len(backbone.features["sequence"].shape) == 3
    assert ("pooled" in backbone.features) == ("pooler" in entry.layer_groups)
    assert ("padding_mask" in model.input) == entry.input.mask
    assert ("segment_ids" in model.input) == entry.input.segments
    check_cuts(model, groups)
    del backbone, groups, model
    gc.collect()


@pytest.mark.parametrize("entry", PRETRAINED, ids=lambda entry: entry.name)
def test_the_number_of_parameters_follows_from_the_arguments(entry):
    pooler = "pooler" in entry.layer_groups
    assert count_parameters(entry.family, entry.constructor.arguments, pooler=pooler) == entry.params


@pytest.mark.parametrize("entry", PRESETS, ids=lambda entry: entry.name)
def test_keras_hub_knows_the_preset_with_as_many_parameters(entry):
    known = {}
    for name in ("Albert", "Bert", "DebertaV3", "DistilBert", "Electra", "FNet", "Roberta", "XLMRoberta"):
        known |= getattr(keras_hub.models, f"{name}Backbone").presets
    pooler = entry.family in (
        "albert",
        "bert",
        "electra",
        "f_net",
    )  # ELECTRA's was never trained: left out here
    expected = known[entry.source.preset]["metadata"]["params"]
    assert count_parameters(entry.family, entry.constructor.arguments, pooler=pooler) == expected


def test_every_block_is_a_group():
    for entry in PRETRAINED:
        arguments = entry.constructor.arguments
        blocks = [name for name in entry.layer_groups if name.startswith("block")]
        assert len(blocks) == arguments.get("num_groups", arguments["num_layers"])


def test_a_scratch_backbone_takes_its_shape_from_the_config():
    chosen = ArchitectureConfig(layers=3, width=6, dropout=0.0)
    backbone = load("text_cnn", architecture=chosen, vocabulary_size=40, seed=0)
    assert [group.name for group in group_layers(backbone)] == ["embeddings", "layer1", "layer2", "layer3"]
    assert backbone.entry.params == backbone.model.count_params()
    assert backbone.model.get_layer("embeddings").embeddings.shape == (40, 128)
    x = {name: np.ones((2, 5), "int32") for name in backbone.model.input}
    assert backbone.model(x)["sequence"].shape == (2, 5, 6)
    again = load(backbone.entry)
    assert again.entry == backbone.entry
    with pytest.raises(ConfigError, match="'text_mlp' has no kernel_size. It has: vocabulary_size, "):
        load("text_mlp", architecture=ArchitectureConfig(kernel_size=3))
    with pytest.raises(ConfigError, match="'text_mlp' brings no vocabulary"):
        source_folder("text_mlp")


def small_preset(family, folder, tokenizer=None):
    """A preset of KerasHub's own form on this machine, and a zoo entry for it."""
    entry = next(entry for entry in PRESETS if entry.family == family)
    arguments = {
        "vocabulary_size": 50,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 12,
    }
    arguments |= {"max_sequence_length": 20, **({"bucket_size": 4} if family == "deberta_v3" else {})}
    whole = getattr(keras_hub.models, {"bert": "BertBackbone", "deberta_v3": "DebertaV3Backbone"}[family])(
        **arguments
    )
    whole.save_to_preset(folder)
    if tokenizer:
        tokenizer.save_to_preset(folder)
    source = entry.source.model_copy(update={"preset": str(folder)})
    template = {
        "layer_groups": family_fields(family)["layer_groups"],
        "constructor": {"arguments": arguments},
    }
    groups = expand_groups(template)["layer_groups"]
    constructor = entry.constructor.model_copy(
        update={"arguments": {**entry.constructor.arguments, **arguments}}
    )
    changes = {"source": source, "layer_groups": groups, "constructor": constructor}
    return whole, entry.model_copy(update=changes)


@pytest.mark.parametrize("family", ["bert", "deberta_v3"])
def test_a_preset_keeps_its_weights(family, tmp_path):
    whole, entry = small_preset(family, tmp_path / "preset")
    activation = "gelu_tanh" if family == "bert" else "gelu"  # KerasHub's own, to compare with it
    constructor = entry.constructor.model_copy(
        update={"arguments": {**entry.constructor.arguments, "activation": activation}}
    )
    backbone = load(entry.model_copy(update={"constructor": constructor}))
    random = np.random.default_rng(0)
    x = {name: random.integers(1, 2, (2, 9)).astype("int32") for name in whole.input}
    theirs = whole(x, training=False)
    theirs = theirs["sequence_output"] if isinstance(theirs, dict) else theirs
    np.testing.assert_allclose(backbone.model(x, training=False)["sequence"], theirs, atol=1e-6)
    group_layers(backbone)


def test_a_preset_brings_its_vocabulary(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    _, entry = small_preset("bert", tmp_path / "preset", keras_hub.models.BertTokenizer(words))
    folder = source_folder(entry)
    assert (folder / entry.input.tokenizer.files[0]).read_text().split() == words


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def words_of(folder):
    return (folder / "vocabulary.txt").read_text().split()


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """A folder of Hugging Face's, from whose vocabulary KerasHub makes one of its own."""
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "preset"
    folder.mkdir()
    sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, "before"]))
    return folder


def test_a_changed_vocabulary_in_a_folder_is_the_one_that_is_used(converted):
    first = preset_vocabulary(str(converted), ("vocabulary.txt",))
    assert words_of(first)[-1] == "before"
    assert preset_vocabulary(str(converted), ("vocabulary.txt",)) == first
    (converted / "vocab.txt").write_text("\n".join([*SPECIAL, "after"]))
    assert words_of(preset_vocabulary(str(converted), ("vocabulary.txt",)))[-1] == "after"
    assert words_of(first)[-1] == "before"  # of another run, perhaps


def test_a_cached_vocabulary_that_was_swapped_is_made_anew(converted):
    folder = preset_vocabulary(str(converted), ("vocabulary.txt",))
    (folder / "vocabulary.txt").write_text("\n".join([*SPECIAL, "swapped"]))
    assert words_of(preset_vocabulary(str(converted), ("vocabulary.txt",)))[-1] == "before"


def test_a_vocabulary_that_is_a_link_out_of_its_preset_is_refused(tmp_path):
    _, entry = small_preset("bert", tmp_path / "preset", keras_hub.models.BertTokenizer([*SPECIAL, "a"]))
    vocabulary = source_folder(entry) / "vocabulary.txt"
    vocabulary.rename(tmp_path / "elsewhere.txt")
    vocabulary.symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(
        FetchError, match=r"vocabulary\.txt' is a link to .*elsewhere\.txt', outside its folder"
    ):
        source_folder(entry)


def test_a_preset_without_a_network_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    for get in (load, source_folder):
        with pytest.raises(
            FetchError, match="bert_tiny_en_uncased is not in the cache folder, nor in KerasHub"
        ) as caught:
            get("bert_tiny_en_uncased")
        assert "\n" not in str(caught.value)


def test_a_preset_that_keras_hub_does_not_have_is_one_line():
    entry = zoo.get("bert_tiny_en_uncased")
    entry = entry.model_copy(update={"source": entry.source.model_copy(update={"preset": "bert_nano"})})
    with pytest.raises(ConfigError, match="KerasHub refuses the preset bert_nano") as caught:
        load(entry)
    assert "\n" not in str(caught.value)
