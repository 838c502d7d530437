"""Several labels, and vectors, of texts by SavedModels that take strings: trained, saved, exported."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml

import tlkit
from tlkit.backbones.saved_model import describe_saved_model
from tlkit.errors import ConfigError
from tlkit.zoo.source import HubSource

from saved_models import TextModule, TextPreprocessor, save_reusable, small_text_encoder, write_vocabulary

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "good", "bad"]
SETTINGS = {"batch_size": 8, "epochs": 4, "learning_rate": 0.05, "plan": "full"}


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with an encoder of strings, and one of tokens with its preprocessing."""
    folder = tmp_path_factory.mktemp("zoo")
    keras.utils.set_random_seed(1)
    vocabulary = write_vocabulary(folder / "words.txt", WORDS)
    tf.saved_model.save(TextModule(vocabulary), str(folder / "strings"))
    tf.saved_model.save(TextPreprocessor(vocabulary), str(folder / "before"))
    save_reusable(small_text_encoder(), folder / "encoder")
    entries = {
        name: describe_saved_model(HubSource(kind="hub", handle=str(folder / name)), name).to_dict()
        for name in ("strings", "encoder")
    }
    entries["encoder"] |= {
        "modality": "text",
        "input": {
            "sequence_length": 12,
            "tokenizer": {"kind": "strings"},
            "preprocessing": {"kind": "hub", "handle": str(folder / "before")},
        },
    }
    for entry in entries.values():
        entry.pop("name")
    (folder / "zoo.yaml").write_text(yaml.safe_dump({"entries": entries}))
    return folder / "zoo.yaml"


@pytest.fixture(autouse=True)
def _own_zoo(zoo_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_ZOO", str(zoo_file))


def texts(n: int = 40) -> list[str]:
    draw = np.random.default_rng(0)
    return [f"the {('cat', 'dog')[k % 2]} {' '.join(draw.choice(WORDS[4:], 3))} {k}" for k in range(n)]


def served(run: tlkit.Run, text: str) -> dict[str, np.ndarray]:
    serve = tf.saved_model.load(str(run.path / "export")).signatures["serving_default"]
    return {name: value.numpy() for name, value in serve(text=tf.constant([text])).items()}


def check_training(run: tlkit.Run) -> None:
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]
    assert all(run.stages["frozen_unchanged"])


@pytest.mark.parametrize("backbone", ["strings", "encoder"])
def test_several_labels_of_a_text(backbone, tmp_path):
    labels = ["|".join(word for word in ("cat", "dog", "good", "bad") if word in text) for text in texts()]
    pd.DataFrame({"text": texts(), "label": labels}).to_csv(tmp_path / "table.csv", index=False)
    run = tlkit.finetune(
        tmp_path / "table.csv", backbone, task="multilabel", **SETTINGS, out=tmp_path / "run"
    )
    check_training(run)
    assert sorted(run.classes) == ["bad", "cat", "dog", "good"]
    scores = run.predict("the cat sat good")["scores"]
    assert tlkit.load(run.path).predict("the cat sat good")["scores"] == pytest.approx(scores, abs=1e-5)
    given = served(run, "the cat sat good")["scores"][0]
    np.testing.assert_allclose(given, [scores[name] for name in run.classes], atol=1e-5)


@pytest.mark.parametrize("backbone", ["strings", "encoder"])
def test_the_vector_of_a_text(backbone, tmp_path):
    others = np.random.default_rng(1).permutation(texts())
    alike = [float(one.split()[1] == other.split()[1]) for one, other in zip(texts(), others, strict=True)]
    table = pd.DataFrame({"text": texts(), "text_b": others, "label": alike})
    table.to_csv(tmp_path / "pairs.csv", index=False)
    run = tlkit.finetune(tmp_path / "pairs.csv", backbone, task="embed", **SETTINGS, out=tmp_path / "run")
    check_training(run)
    vector = run.predict("the cat sat")["vector"]
    assert tlkit.load(run.path).predict("the cat sat")["vector"] == pytest.approx(vector, abs=1e-5)
    np.testing.assert_allclose(served(run, "the cat sat")["vector"][0], vector, atol=1e-5)


def test_labels_of_words_are_refused_before_training(tmp_path):
    lines = "\n\n".join("\n".join(f"{word} O" for word in text.split()) for text in texts())
    (tmp_path / "tags.conll").write_text(f"{lines}\n".replace("cat O", "cat B-ANIMAL"))
    with pytest.raises(ConfigError, match="'tokens' needs a backbone that answers for every word"):
        tlkit.finetune(tmp_path / "tags.conll", "strings", task="tokens", **SETTINGS, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
