"""Adapters and head as one file: it is the run again, beside the right backbone and no other."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file
from test_finetune_texts import SHELL, animals, finetune, make_sentences, write_table

import tlkit
from tlkit.cli import main
from tlkit.errors import ConfigError, FetchError

from conftest import make_pictures
from saved_models import save_reusable, small_cnn
from small_models import own_model

LORA = {"name": "lora", "rank": 2}
TEXTS = ["the cat sat", "a dog and a house", "the"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    texts = make_sentences()
    return write_table(tmp_path_factory.mktemp("data") / "animals.csv", text=texts, label=animals(texts))


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    """Learns at a rate that moves every answer."""
    return finetune(table, tmp_path_factory.mktemp("runs") / "lora", plan=LORA, learning_rate=0.1)


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    return run.save_adapters(tmp_path_factory.mktemp("shared") / "mine.safetensors")


def scores(run, inputs):
    return np.array([list(answer["scores"].values()) for answer in run.predict(inputs)])


def metadata_of(path):
    with safetensors.safe_open(path, framework="np") as opened:
        return opened.metadata()


def rewritten(path, to, tensors=None, **metadata):
    save_file(tensors or load_file(path), to, {**metadata_of(path), **metadata})
    return to


def test_the_file_is_the_run_again(run, file):
    again = tlkit.load(file)
    np.testing.assert_allclose(scores(again, TEXTS), scores(run, TEXTS), atol=1e-6)
    np.testing.assert_allclose(scores(tlkit.load(run.path), TEXTS), scores(run, TEXTS), atol=1e-6)
    assert again.evaluate()["loss"] == pytest.approx(run.metrics["loss"], abs=1e-5)


def test_the_adapters_in_the_file_make_a_difference(run, file, tmp_path):
    tensors = {
        name: np.zeros_like(value) if name.startswith("adapters/") else value
        for name, value in load_file(file).items()
    }
    without = tlkit.load(rewritten(file, tmp_path / "zero.safetensors", tensors))
    assert np.abs(scores(without, TEXTS) - scores(run, TEXTS)).max() > 1e-3


def test_the_file_is_small_and_says_what_it_is(run, file):
    assert file.stat().st_size < (run.path / "model.keras").stat().st_size / 3
    said = metadata_of(file)
    assert said["backbone"] == run.entry.name
    assert json.loads(said["rank"]) == 2
    assert json.loads(said["targets"]) == run.result.stages[0].adapters["targets"]
    assert "trust: true" not in said["config"]


def test_the_model_of_the_run_has_no_trace_of_adapters(run):
    model = tlkit.load(run.path).model
    assert not any("lora" in weight.path for weight in model.weights)
    assert '"lora_rank": 2' not in model.to_json()
    assert run.result.stages[0].frozen_unchanged


@pytest.mark.slow
def test_the_file_exports(file, tmp_path):
    exported = tlkit.load(file).export(tmp_path / "export")
    assert (exported / "saved_model.pb").is_file()


def test_pictures_have_adapters_too(tmp_path):
    photos = make_pictures(tmp_path / "photos")
    keras.utils.set_random_seed(3)
    own_model(32).save(tmp_path / "mine.keras")
    run = tlkit.finetune(
        photos,
        str(tmp_path / "mine.keras"),
        plan=LORA,
        epochs=1,
        learning_rate=0.1,
        out=tmp_path / "run",
        export=False,
        batch_size=8,
    )
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype="uint8")
    again = tlkit.load(run.save_adapters(tmp_path / "adapters.safetensors"))
    np.testing.assert_allclose(scores(again, pictures), scores(run, pictures), atol=1e-6)

    own_model(32).save(tmp_path / "mine.keras")  # other weights by the same name
    with pytest.raises(ConfigError, match="was trained beside other weights than"):
        tlkit.load(tmp_path / "adapters.safetensors")


def test_the_shell_trains_says_what_it_trains_and_answers_from_the_file(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["finetune", "--data", str(table), *SHELL, "--plan", "lora", "plan.rank=2", "--out", "run"]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "head, adapters in block1 to block2" in said
    assert "lora: adapters of rank 2, 160 parameters, beside 4 layers: transformer_layer_0" in said
    assert main(command) == 0
    assert "head, adapters in block1 to block2" in capsys.readouterr().out
    assert main(["predict", "run/adapters.safetensors", "--text", "a dog", "--json"]) == 0
    from_file = json.loads(capsys.readouterr().out)
    assert main(["predict", "run", "--text", "a dog", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["score"] == pytest.approx(from_file[0]["score"], abs=1e-6)


def test_a_run_of_another_plan_has_no_adapters(table, tmp_path):
    run = finetune(table, tmp_path / "run", plan="head")
    with pytest.raises(ConfigError, match="has no adapters"):
        run.save_adapters(tmp_path / "adapters.safetensors")
    assert not (tmp_path / "adapters.safetensors").exists()


def test_a_damaged_file_is_one_line(file, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FetchError, match="not a whole safetensors file"):
        tlkit.load(cut)
    other = tmp_path / "other.safetensors"
    save_file({"a": np.zeros(2)}, other)
    with pytest.raises(ConfigError, match="holds no adapters that this version reads"):
        tlkit.load(other)
    tensors = load_file(file)
    missing = {name: value for name, value in tensors.items() if not name.startswith("head/1")}
    with pytest.raises(FetchError, match="does not fit"):
        tlkit.load(rewritten(file, tmp_path / "missing.safetensors", missing))
    short = {name: value[:1] for name, value in tensors.items()}
    with pytest.raises(FetchError, match="does not fit"):
        tlkit.load(rewritten(file, tmp_path / "short.safetensors", short))
    with pytest.raises(FetchError, match="is damaged"):
        tlkit.load(rewritten(file, tmp_path / "model.safetensors", model="{"))


def test_a_file_with_code_in_its_model_is_refused(file, tmp_path):
    model = json.loads(metadata_of(file)["model"])
    model["config"]["layers"][-1] = {"class_name": "Lambda", "module": "keras.layers", "config": {}}
    with pytest.raises(FetchError, match="a Lambda layer, which holds Python code"):
        tlkit.load(rewritten(file, tmp_path / "code.safetensors", model=json.dumps(model)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"plan": {**LORA, "rank": 0}}, "plan.rank.*greater than or equal to 1"),
        ({"plan": {**LORA, "rank": -1}}, "plan.rank"),
        ({"plan": {**LORA, "rank": 100}}, "room for rank 4, received 100"),
        ({"plan": {**LORA, "alpha": 0}}, "plan.alpha"),
        ({"plan": {**LORA, "targets": ["querry"]}}, "'querry' in its path. Did you mean 'query'"),
        ({"plan": {**LORA, "targets": ["("]}}, "not a regular expression"),
        ({"plan": {**LORA, "targets": []}}, "plan.targets"),
        ({"plan": {**LORA, "targets": "query"}}, "plan.targets"),
        ({"plan": {**LORA, "stages": [{"train": "head", "epochs": 1}]}}, "stages"),
        ({"plan": [{"train": "lora", "epochs": 1}]}, "plan"),
        ({"plan": LORA, "weights": "none"}, "lora adapts pretrained weights"),
        ({"plan": LORA, "batch_norm": "train"}, "received batch_norm: train"),
        ({"plan": LORA, "backbone": "text_mlp"}, "'text_mlp' is trained from scratch"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_before_anything_is_written(settings, message, table, tmp_path):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        finetune(table, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_saved_model_has_no_layers_to_adapt(tmp_path):
    photos = make_pictures(tmp_path / "photos", size=24)
    folder = save_reusable(small_cnn(), tmp_path / "saved")
    with pytest.raises(ConfigError, match="dense, convolutional and embedding layers, and .* has none"):
        tlkit.finetune(photos, str(folder), plan="lora", epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
