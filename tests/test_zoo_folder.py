"""A zoo entry from a bare Hugging Face folder: what is read, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tlkit import zoo
from tlkit.errors import ConfigError, FetchError
from tlkit.zoo.hashing import hash_of_folder
from tlkit.zoo.tokenizer_json import vocabulary_folder

FIXTURES = Path(__file__).parent / "fixtures" / "text"


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny BERT, which a test may change."""
    return shutil.copytree(FIXTURES / "bert", tmp_path / "my-bert")


def change(folder, file="config.json", **keys):
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **keys}))


def test_the_architecture_comes_from_the_config(folder):
    entry = zoo.entry_of_folder(folder)
    assert (entry.name, entry.modality, entry.family, entry.kind) == ("my-bert", "text", "bert", "text")
    assert entry.source.path == str(folder)
    arguments = entry.constructor.arguments
    assert (arguments["vocabulary_size"], arguments["hidden_dim"], arguments["activation"]) == (70, 8, "gelu")
    assert list(entry.layer_groups) == ["embeddings", "block1", "block2", "pooler"]
    assert entry.input.sequence_length == 40
    assert not entry.verified
    assert zoo.ZooEntry.model_validate(entry.to_dict()) == entry


@pytest.mark.parametrize(
    ("family", "kind", "files", "separator", "mask", "segments", "lowercase"),
    [
        ("albert", "sentencepiece", ("spiece.model",), ("[SEP]",), True, True, True),
        ("bert", "wordpiece", ("vocab.txt",), ("[SEP]",), True, True, True),
        ("deberta_v3", "sentencepiece", ("spm.model",), ("[SEP]",), True, False, False),
        ("distil_bert", "wordpiece", ("vocab.txt",), ("[SEP]",), True, False, False),
        ("electra", "wordpiece", ("vocab.txt",), ("[SEP]",), True, True, True),
        ("f_net", "sentencepiece", ("spiece.model",), ("[SEP]",), False, True, False),
        ("roberta", "bytepair", ("vocab.json", "merges.txt"), ("</s>", "</s>"), True, False, False),
        ("xlm_roberta", "sentencepiece", ("sentencepiece.bpe.model",), ("</s>", "</s>"), True, False, False),
    ],
)
def test_the_facts_of_the_input(family, kind, files, separator, mask, segments, lowercase):
    entry = zoo.entry_of_folder(FIXTURES / family)
    facts = entry.input.tokenizer
    assert (facts.kind, facts.files, facts.separator) == (kind, files, separator)
    assert (facts.lowercase, facts.strip_accents) == (lowercase, lowercase)
    assert (entry.input.mask, entry.input.segments, entry.input.sequence_length) == (mask, segments, 40)


def test_the_tokenizer_s_config_decides_about_case_and_special_tokens(folder):
    change(folder, "tokenizer_config.json", do_lower_case=False)
    facts = zoo.entry_of_folder(folder).input.tokenizer
    assert (facts.lowercase, facts.strip_accents) == (False, False)
    change(folder, "tokenizer_config.json", do_lower_case=True, strip_accents=False)
    facts = zoo.entry_of_folder(folder).input.tokenizer
    assert (facts.lowercase, facts.strip_accents) == (True, False)
    change(folder, "tokenizer_config.json", cls_token={"content": "<start>"}, sep_token="<end>")
    facts = zoo.entry_of_folder(folder).input.tokenizer
    assert (facts.start, facts.end, facts.separator, facts.pad) == ("<start>", "<end>", ("<end>",), "[PAD]")
    (folder / "tokenizer_config.json").unlink()
    assert zoo.entry_of_folder(folder).input.tokenizer.lowercase


def test_a_bert_with_another_vocabulary_gets_its_tokenizer(folder):
    change(folder, "tokenizer_config.json", tokenizer_class="XLMRobertaTokenizer")
    shutil.copy(FIXTURES / "xlm_roberta" / "sentencepiece.bpe.model", folder)
    facts = zoo.entry_of_folder(folder).input.tokenizer
    assert (facts.kind, facts.start, facts.separator) == ("sentencepiece", "<s>", ("</s>", "</s>"))


def test_shared_blocks_are_one_group(tmp_path):
    folder = shutil.copytree(FIXTURES / "albert", tmp_path / "albert")
    assert list(zoo.entry_of_folder(folder).layer_groups) == ["embeddings", "block1", "pooler"]
    change(folder, num_hidden_groups=2)
    assert list(zoo.entry_of_folder(folder).layer_groups) == ["embeddings", "block1", "block2", "pooler"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2', which tlkit cannot build. Allowed: albert, bert, "),
        ({"model_type": "distil-bert"}, "'distil-bert', which tlkit cannot build. Did you mean 'distilbert'"),
        ({"model_type": ["bert"]}, r"model_type \['bert'\], which tlkit cannot build"),
        ({"hidden_size": None}, "hidden_size: None; it must be a whole number above 0"),
        ({"hidden_act": "mish"}, "the unknown activation 'mish'. Did you mean 'swish'"),
        ({"hidden_act": ["gelu"]}, r"the unknown activation \['gelu'\]"),
        ({"num_attention_heads": 3}, "hidden_size: 8, which 3 heads cannot share evenly"),
        ({"is_decoder": True}, "is_decoder: True; tlkit's bert needs False"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'; tlkit's bert needs 'absolute'"),
        ({"layer_norm_eps": [1]}, "does not describe a backbone: constructor.arguments.layer_norm_epsilon"),
    ],
)
def test_a_config_that_cannot_be_built_is_one_line(folder, keys, message):
    change(folder, **keys)
    with pytest.raises(ConfigError, match=message) as caught:
        zoo.entry_of_folder(folder)
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


def test_a_deberta_with_other_attention_is_refused(tmp_path):
    folder = shutil.copytree(FIXTURES / "deberta_v3", tmp_path / "deberta")
    change(folder, share_att_key=False)
    with pytest.raises(ConfigError, match="share_att_key: False; tlkit's deberta-v2 needs True"):
        zoo.entry_of_folder(folder)


def test_a_size_that_is_missing_is_named(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["vocab_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="has no 'vocab_size'"):
        zoo.entry_of_folder(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "has no config.json"),
        ("vocab.txt", "has no vocab.txt, the vocabulary of its family$"),
        ("model.safetensors", "has no weights: no model.safetensors"),
    ],
)
def test_a_missing_file_is_named(folder, file, message):
    (folder / file).unlink()
    with pytest.raises(FetchError, match=message):
        zoo.entry_of_folder(folder)


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        FetchError, match="in pytorch_model.bin, which is a pickle .* only safetensors is read"
    ):
        zoo.entry_of_folder(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "missing.safetensors"}}, "has no missing.safetensors, which its .* names"),
        ({"weight_map": {"a": "../outside.safetensors"}}, "names a file outside its folder"),
        ({"weight_map": {}}, "has no 'weight_map'"),
        ([], "must hold a mapping, received list"),
    ],
)
def test_an_index_that_cannot_be_followed_is_refused(folder, index, message):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FetchError, match=message):
        zoo.entry_of_folder(folder)


def test_a_broken_config_is_one_line(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(FetchError, match="config.json cannot be read as JSON"):
        zoo.entry_of_folder(folder)


def test_only_a_folder_with_a_config_is_one_of_hugging_face(folder, tmp_path):
    assert zoo.is_hugging_face_folder(folder)
    assert not zoo.is_hugging_face_folder(tmp_path)
    assert not zoo.is_hugging_face_folder("minilm_l6")


def test_an_entry_needs_no_tensorflow(folder):
    code = (
        f"import sys; from tlkit import zoo; zoo.entry_of_folder({str(folder)!r}); "
        "print({'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def as_saved_today(folder, kind, vocabulary, **model):
    """Write a tokenizer.json, which is all that newer versions of transformers save of a vocabulary."""
    numbers = {token: number for number, token in enumerate(vocabulary)}
    added = [{"id": 0, "content": vocabulary[0], "special": True}]
    content = {"added_tokens": added, "model": {"type": kind, "vocab": numbers, **model}}
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def test_a_wordpiece_vocabulary_can_come_from_the_tokenizer_s_json(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    before = (folder / "vocab.txt").read_text()
    as_saved_today(folder, "WordPiece", before.split())
    change(folder, "tokenizer.json", added_tokens=[{"id": 65, "content": "[NEW]"}])
    (folder / "vocab.txt").unlink()
    entry = zoo.entry_of_folder(folder)
    assert entry.input.tokenizer.files == ("vocab.txt",)
    made = vocabulary_folder(folder, ("vocab.txt",))
    assert made.parent == tmp_path / "home" / "vocabularies"
    assert (made / "vocab.txt").read_text() == before + "[gap 63]\n[gap 64]\n[NEW]\n"
    assert vocabulary_folder(folder, ("vocab.txt",)) == made


def test_a_vocabulary_of_byte_pairs_can_come_from_the_tokenizer_s_json(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    folder = shutil.copytree(FIXTURES / "roberta", tmp_path / "roberta")
    files = ("vocab.json", "merges.txt")
    numbers, merges = json.loads((folder / files[0]).read_text()), (folder / files[1]).read_text()
    pairs = [line.split(" ") for line in merges.splitlines()[1:]]
    as_saved_today(folder, "BPE", list(numbers), merges=pairs)
    for name in files:
        (folder / name).unlink()
    zoo.entry_of_folder(folder)
    made = vocabulary_folder(folder, files)
    assert json.loads((made / files[0]).read_text()) == numbers
    assert (made / files[1]).read_text() == merges


@pytest.mark.parametrize(
    ("family", "content", "message"),
    [
        (
            "albert",
            {"model": {"type": "Unigram", "vocab": []}},
            "has no spiece.model, .* copy spiece.model from",
        ),
        ("bert", {"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 9}}}, "cannot be written as a list"),
        (
            "bert",
            {"model": {"type": "WordPiece", "vocab": {"a": 0, "b\n": 1}}},
            "cannot be written as a list",
        ),
        ("bert", {"model": {"type": "WordPiece", "vocab": {"a": "0"}}}, "has no readable vocabulary"),
        ("bert", {"model": {"type": "WordPiece"}}, "has no readable vocabulary"),
        ("bert", {"model": None}, r"has no vocab.txt, and its tokenizer.json \(None\) cannot"),
    ],
)
def test_a_tokenizer_s_json_that_cannot_stand_in_is_one_line(tmp_path, family, content, message):
    folder = shutil.copytree(FIXTURES / family, tmp_path / family)
    (folder / zoo.entry_of_folder(folder).input.tokenizer.files[0]).unlink()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(FetchError, match=message) as caught:
        zoo.entry_of_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_is_verified_as_a_whole(folder):
    entry = zoo.entry_of_folder(folder)
    assert zoo.fetch_weights(entry) == folder
    pinned = entry.source.model_copy(update={"sha256": hash_of_folder(folder)})
    pinned = entry.model_copy(update={"source": pinned})
    assert zoo.verify([entry, pinned]) == {"my-bert": "ok"}
    assert zoo.fetch_weights(pinned) == folder
    (folder / "vocab.txt").write_text("changed")
    assert zoo.verify([pinned]) == {"my-bert": "damaged"}
    with pytest.raises(FetchError, match="does not have the sha256 that the zoo names"):
        zoo.fetch_weights(pinned)
    shutil.rmtree(folder)
    assert zoo.verify([entry]) == {"my-bert": "not fetched"}


def test_what_has_no_file_of_weights_says_why():
    scratch, preset = zoo.get("text_mlp"), zoo.get("bert_tiny_en_uncased")
    assert zoo.verify([scratch, preset]) == {
        "text_mlp": "from scratch",
        "bert_tiny_en_uncased": "not fetched",
    }
    with pytest.raises(FetchError, match="'text_mlp' is trained from scratch"):
        zoo.fetch_weights(scratch)
    with pytest.raises(FetchError, match="KerasHub downloads them: tlkit zoo fetch bert_tiny_en_uncased"):
        zoo.fetch_weights(preset)


def test_a_group_for_every_block_is_written_once(tmp_path):
    text = """
families:
  tiny:
    modality: text
    source: {kind: none}
    constructor: {builder: text_cnn, arguments: {layers: 3}}
    input: {sequence_length: 8, tokenizer: {kind: words}}
    layer_groups: {below: embeddings, "layer{i}": "layer{i}_{i0}", above: "x{2}"}
    license: MIT
entries:
  small: {family: tiny, params: 10}
"""
    path = tmp_path / "zoo.yaml"
    path.write_text(text)
    (entry,) = zoo.entries(path)
    assert entry.layer_groups == {
        "below": "embeddings",
        "layer1": "layer1_0",
        "layer2": "layer2_1",
        "layer3": "layer3_2",
        "above": "x{2}",
    }


def test_more_groups_than_any_backbone_has_are_refused_before_they_are_made(tmp_path, folder):
    text = """
entries:
  huge:
    modality: text
    family: tiny
    source: {kind: none}
    constructor: {builder: text_cnn, arguments: {layers: 1000000000000}}
    input: {sequence_length: 8, tokenizer: {kind: words}}
    layer_groups: {"layer{i}": "layer{i}"}
    license: MIT
    params: 10
"""
    path = tmp_path / "zoo.yaml"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=r"huge\.layer_groups: 1,000,000,000,000 blocks would make more than"
    ):
        zoo.entries(path)
    change(folder, num_hidden_layers=10**12)
    with pytest.raises(ConfigError, match=r"1,000,000,000,000 blocks would make more than 10,000 groups"):
        zoo.entry_of_folder(folder)
