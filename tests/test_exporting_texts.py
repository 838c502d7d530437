"""An exported model of texts takes strings and answers like the run, or it does not appear at all."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit import backbones, zoo
from tlkit.config import HeadConfig, PreprocessingConfig
from tlkit.config.text import PorterStem
from tlkit.errors import ConfigError, ExportMismatch
from tlkit.exporting import export_saved_model, name_tags
from tlkit.exporting.odd_texts import ODD_TEXTS, add_odd_texts
from tlkit.heads import make_head, to_scores
from tlkit.model import build_model
from tlkit.preprocessing import TextPreprocessing, make_text_preprocessing
from tlkit.preprocessing.nltk_steps import make_cleaner
from tlkit.preprocessing.tokenizers import make_tokenizer
from tlkit.zoo import TextInput
from tlkit.zoo.entry import Tokenizer

FIXTURES = Path(__file__).parent / "fixtures" / "tokens"
FACTS = Tokenizer(kind="wordpiece", files=("wordpiece_vocab.txt",), lowercase=True, strip_accents=True)
TOKENIZER = make_tokenizer(FACTS, FIXTURES)
ENTRY = zoo.get("minilm_l6")
CLASSES = ["bad", "good", "läßt sich | ansehen"]
TAGS = ["B-PER", "I-PER", "O"]
LENGTH = 12

TEXTS = ["A fine film.", "Not fine at all", "so so …", "naïve but nice " * 9, "👍🏽"]
PAIRS = [("a man sings", "someone sings"), ("a b c", "d"), ("one", "two " * 30)]
SENTENCES = [["a", "b", "c", "d", "e", "."], ["Hello"], ["word"] * 40]


def make_preprocessing(task: str, **options: Any) -> TextPreprocessing:
    spec = PreprocessingConfig(sequence_length=LENGTH, **options)
    text_input = TextInput(sequence_length=64, tokenizer=FACTS)
    return make_text_preprocessing(text_input, spec, TOKENIZER, task)  # type: ignore[arg-type]


def make_model(objective: str, n_outputs: int | None = 3, windows: bool = False) -> keras.Model:
    """A Conv1D over embeddings, with a head."""
    keras.utils.set_random_seed(5)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    large = keras.initializers.RandomNormal(stddev=1.0)  # so that the answers depend on the text
    x = keras.layers.Embedding(TOKENIZER.vocabulary_size, 8, embeddings_initializer=large)(
        inputs["token_ids"]
    )
    x = x * keras.ops.cast(inputs["padding_mask"], "float32")[..., None]
    x = keras.layers.Conv1D(8, 3, padding="same", activation="tanh", kernel_initializer=large)(x)
    backbone = backbones.Backbone(ENTRY, keras.Model(inputs, {"sequence": x}), {"sequence": x})
    targets = np.linspace(0, 5, 50) if objective in ("regress", "embed") else None
    head = make_head(HeadConfig(), objective, n_outputs=n_outputs, targets=targets)  # type: ignore[arg-type]
    return build_model(backbone, head, windows=windows, words=objective == "tokens")


def scores_of(model: keras.Model, preprocessing: TextPreprocessing, objective: Any, raw: Any) -> np.ndarray:
    inputs = preprocessing.from_raw(raw)
    return np.array(to_scores(objective, model({name: inputs[name] for name in model.input})))


def export(
    to: Path, objective: Any, preprocessing: TextPreprocessing, model: keras.Model, **options: Any
) -> dict[str, Any]:
    """Export, and reload the signatures; `report` is what was reported."""
    classes = {"classify": CLASSES, "multilabel": CLASSES, "tokens": TAGS}.get(objective)
    settings = {"classes": classes, "to_scores": functools.partial(to_scores, objective), "entry": ENTRY}
    report = export_saved_model(model, preprocessing, to, objective=objective, **(settings | options))
    loaded = tf.saved_model.load(str(to))
    signatures = dict(loaded.signatures)
    for signature in signatures.values():  # the variables live as long as what was loaded does
        signature.keep = loaded
    return signatures | {"report": report}


def described(to: Path) -> dict[str, Any]:
    return json.loads((to / "assets" / "input.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    to = tmp_path_factory.mktemp("export") / "1"
    model, preprocessing = make_model("classify"), make_preprocessing("classify")
    wanted = scores_of(model, preprocessing, "classify", tf.constant(TEXTS))
    exported = export(to, "classify", preprocessing, model, examples=TEXTS, expected=wanted)
    return exported | {"to": to, "wanted": wanted}


def test_a_classifier_takes_strings(classifier: dict[str, Any]) -> None:
    answers = classifier["serving_default"](text=tf.constant(TEXTS))
    wanted = classifier["wanted"]
    np.testing.assert_allclose(answers["scores"], wanted, atol=1e-5)
    assert [name.decode() for name in answers["label"].numpy()] == [CLASSES[k] for k in wanted.argmax(axis=1)]
    assert len(set(wanted.argmax(axis=1))) > 1
    assert answers["top_k_labels"].shape == (len(TEXTS), 3)


def test_every_odd_text_is_compared(classifier: dict[str, Any]) -> None:
    check = classifier["report"].check
    assert set(ODD_TEXTS) < set(check.formats)
    assert check.formats["as given"] == len(TEXTS)
    assert check.examples >= 32
    assert check.differences["serving_default"] <= 1e-5
    assert check.run_difference <= 1e-5
    assert classifier["report"].signatures == ("serving_default",)


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches_are_answered(classifier: dict[str, Any], n: int) -> None:
    answers = classifier["serving_default"](text=tf.constant(TEXTS[:n], tf.string))
    shapes = {name: tuple(value.shape) for name, value in answers.items()}
    assert shapes == {"scores": (n, 3), "label": (n,), "top_k_labels": (n, 3), "top_k_scores": (n, 3)}


def test_what_a_server_needs_and_how_to_ask_it_is_written_down(classifier: dict[str, Any]) -> None:
    facts = described(classifier["to"])
    assert facts["inputs"]["serving_default"]["text"]["dtype"] == "string"
    assert facts["inside"]["sequence_length"] == LENGTH
    assert facts["needs"]["modules"] == ["tensorflow_text"]
    assert facts["needs"]["ops"]
    assert facts["client_steps"] == []
    readme = (classifier["to"] / "README.md").read_text(encoding="utf-8")
    assert all(f"`{op}`" in readme for op in facts["needs"]["ops"])
    assert "import tensorflow_text" in readme
    assert "Before a text is sent" not in readme
    assert "TensorFlow Serving" in readme
    assert all(name in readme for name in CLASSES)
    (request,) = [line for line in readme.splitlines() if line.startswith("curl")]
    body = json.loads(request.split("-d '")[1].removesuffix("'"))
    columns = {name: tf.constant([row[name] for row in body["instances"]]) for name in body["instances"][0]}
    assert classifier["serving_default"](**columns)["label"].shape == (2,)


def test_the_example_in_python_runs(classifier: dict[str, Any]) -> None:
    readme = (classifier["to"] / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0].replace("models/mine/1", str(classifier["to"]))
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["answers"]["label"].numpy()[0].decode() in CLASSES


def test_a_pair_takes_two_strings(tmp_path: Path) -> None:
    model, preprocessing = make_model("regress", 1), make_preprocessing("pair")
    wanted = scores_of(model, preprocessing, "regress", tf.constant(PAIRS))
    exported = export(tmp_path / "1", "regress", preprocessing, model, examples=PAIRS, expected=wanted)
    first, second = (tf.constant([pair[k] for pair in PAIRS]) for k in range(2))
    value = exported["serving_default"](text=first, text_b=second)["value"]
    np.testing.assert_allclose(value, wanted[:, 0], rtol=1e-5)
    other = exported["serving_default"](text=second, text_b=first)["value"]
    assert not np.allclose(value, other)
    assert exported["report"].check.run_difference <= 1e-5
    assert 'text_b": ' in (tmp_path / "1" / "README.md").read_text(encoding="utf-8")


def test_a_model_of_vectors_takes_single_texts(tmp_path: Path) -> None:
    model, preprocessing = make_model("embed", None), make_preprocessing("embed")
    wanted = scores_of(model, preprocessing, "embed", tf.constant([TEXTS[:2], TEXTS[2:4]]))
    exported = export(tmp_path / "1", "embed", preprocessing, model, examples=TEXTS[:4], expected=wanted)
    vectors = exported["serving_default"](text=tf.constant(TEXTS[:3]))["vector"]
    np.testing.assert_allclose(vectors, wanted[:3], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert described(tmp_path / "1")["labels"] == []


def test_windows_read_a_long_text_to_its_end(tmp_path: Path) -> None:
    preprocessing = make_preprocessing("multilabel", long_texts="windows")
    model = make_model("multilabel", windows=True)
    wanted = scores_of(model, preprocessing, "multilabel", tf.constant(TEXTS))
    exported = export(tmp_path / "1", "multilabel", preprocessing, model, examples=TEXTS, expected=wanted)
    long = ["nice " * 30, "nice " * 29 + "bad"]
    scores = exported["serving_default"](text=tf.constant(long))["scores"].numpy()
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
    np.testing.assert_allclose(
        exported["serving_default"](text=tf.constant(TEXTS))["scores"], wanted, atol=1e-5
    )


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    to = tmp_path_factory.mktemp("export") / "1"
    model, preprocessing = make_model("tokens"), make_preprocessing("tokens")
    wanted = scores_of(model, preprocessing, "tokens", tf.ragged.constant(SENTENCES))
    exported = export(to, "tokens", preprocessing, model, examples=SENTENCES, expected=wanted)
    return exported | {"to": to, "wanted": wanted}


def test_tags_come_with_words_and_places_in_the_string_as_sent(tagger: dict[str, Any]) -> None:
    texts = ["  Ada  Lovelace lives", "👩‍👩‍👧 naïve\u00a0Ünïcode x", ""]
    answers = {
        name: value.numpy() for name, value in tagger["serving_default"](text=tf.constant(texts)).items()
    }
    assert set(answers) == {"tags", "scores", "words", "starts", "ends"}
    assert answers["starts"].dtype == answers["ends"].dtype == np.int32
    for row, text in enumerate(texts):
        words = [word.decode() for word in answers["words"][row] if word]
        places = [
            place for place in zip(answers["starts"][row], answers["ends"][row], strict=True) if place[0] >= 0
        ]
        assert [text[start:end] for start, end in places] == words
        assert [bool(tag) for tag in answers["tags"][row]] == [bool(word) for word in answers["words"][row]]
    assert answers["words"][0].tolist()[:3] == [b"Ada", b"Lovelace", b"lives"]
    assert set(answers["starts"][2]) == {-1}


def test_words_that_are_already_split_keep_their_places(tagger: dict[str, Any]) -> None:
    ragged = tf.ragged.constant(SENTENCES, row_splits_dtype=tf.int64)
    answers = tagger["words"](words=ragged.values, row_splits=ragged.row_splits)
    assert answers["tags"].shape == (3, 40)
    wanted = tagger["wanted"]
    tags = [tag.decode() for tag in answers["tags"].numpy()[0]]
    assert tags[:6] == [TAGS[k] for k in wanted[0, :6].argmax(axis=1)]
    assert tags[6:] == [""] * 34
    np.testing.assert_allclose(answers["scores"][0, :6], wanted[0, :6].max(axis=1), atol=1e-5)


def test_words_without_room_are_outside(tagger: dict[str, Any]) -> None:
    answers = tagger["serving_default"](text=tf.constant(["word " * 40]))
    scores = answers["scores"].numpy()[0]
    assert (scores[: LENGTH - 2] > 0).all()
    assert set(scores[LENGTH - 2 :]) == {0.0}
    assert set(answers["tags"].numpy()[0, LENGTH - 2 :]) == {b"O"}
    facts = described(tagger["to"])
    assert "no room" in facts["outputs"]["words"]["tags"]
    assert "URL" in facts["inside"]["words"]
    assert facts["inside"]["words"] in (tagger["to"] / "README.md").read_text(encoding="utf-8")


def test_a_tagger_answers_a_text_alone_and_none_at_all(tagger: dict[str, Any]) -> None:
    assert tagger["report"].check.run_difference <= 1e-5
    none = tagger["serving_default"](text=tf.constant([], tf.string))
    assert {value.shape[0] for value in none.values()} == {0}
    words = tagger["words"](words=tf.constant([], tf.string), row_splits=tf.constant([0], tf.int64))
    assert {value.shape[0] for value in words.values()} == {0}
    empty = tagger["words"](words=tf.constant([], tf.string), row_splits=tf.constant([0, 0], tf.int64))
    assert empty["tags"].shape == (1, 0)


def test_the_request_for_words_has_columns(tagger: dict[str, Any]) -> None:
    readme = (tagger["to"] / "README.md").read_text(encoding="utf-8")
    bodies = [
        json.loads(line.split("-d '")[1].removesuffix("'"))
        for line in readme.splitlines()
        if line.startswith("curl")
    ]
    columns = bodies[1]["inputs"]
    answers = tagger["words"](
        words=tf.constant(columns["words"]), row_splits=tf.constant(columns["row_splits"], tf.int64)
    )
    assert answers["tags"].shape == (2, 4)


def test_unseen_words_get_a_tag_that_says_nothing() -> None:
    scores = tf.constant([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]])
    named = name_tags(scores, tf.constant([[1, -1, 2]]), tf.constant([3]), ["X", "O"])
    assert named["tags"].numpy().tolist() == [[b"X", b"O", b"X"]]
    assert named["scores"].numpy().round(3).tolist() == [[np.float32(0.9), 0.0, np.float32(0.6)]]
    # Fewer starts than words, and tags of which none is called O.
    named = name_tags(scores[:, :1], tf.constant([[1]]), tf.constant([2], tf.int64), ["X", "Y"])
    assert named["tags"].numpy().tolist() == [[b"X", b""]]


def test_nltk_steps_need_a_flag_and_are_written_down(tmp_path: Path) -> None:
    cleaner = make_cleaner([PorterStem()])
    preprocessing = replace(make_preprocessing("classify"), clean=cleaner)
    model = make_model("classify")
    with pytest.raises(ConfigError, match="--client-preprocessing") as caught:
        export(tmp_path / "1", "classify", preprocessing, model)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    export(tmp_path / "1", "classify", preprocessing, model, client_preprocessing=True)
    assert described(tmp_path / "1")["client_steps"] == cleaner.describe()
    readme = (tmp_path / "1" / "README.md").read_text(encoding="utf-8")
    assert "## Before a text is sent" in readme
    assert all(f"{number}. {step}" in readme for number, step in enumerate(cleaner.describe(), 1))


@pytest.mark.slow  # as with pictures, in test_exporting.py
def test_a_graph_that_was_exported_wrongly_is_found(tmp_path: Path) -> None:
    traced: list[Any] = []

    class Forgetful(TextPreprocessing):
        """Takes something away the first time it is traced, which is for the exported model."""

        def from_raw(self, raw: tf.Tensor) -> Any:
            traced.append(raw)
            return super().from_raw(tf.strings.substr(raw, 0, 3) if len(traced) == 1 else raw)

    right = make_preprocessing("classify")
    wrong = Forgetful(right.tokenizer, right.input, right.sequence_length, right.task)
    with pytest.raises(ExportMismatch, match="differently for example"):
        export(tmp_path / "1", "classify", wrong, make_model("classify"), examples=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_odd_texts_come_once_and_examples_first() -> None:
    few = add_odd_texts([b"mine"])
    assert few[0] == ("as given", b"mine")
    assert len(few) == 32
    many = add_odd_texts([b"mine"] * 40)
    assert len(many) == 40 + len(ODD_TEXTS)
    with pytest.raises(UnicodeDecodeError):
        ODD_TEXTS["not UTF-8"].decode()


@pytest.mark.real
@pytest.mark.slow  # the README's commands export such a run, too
def test_minilm_answers_from_its_export_as_in_the_run(tmp_path: Path) -> None:
    backbone = backbones.load(ENTRY, weights="pretrained")
    tokenizer = make_tokenizer(ENTRY.input.tokenizer, backbones.source_folder(ENTRY))
    preprocessing = make_text_preprocessing(ENTRY.input, PreprocessingConfig(), tokenizer, "embed")
    head = make_head(HeadConfig(), "embed", targets=np.linspace(0, 1, 9))
    model = build_model(backbone.without_pooler(), head)
    texts = ["A man is playing a guitar.", "Someone plays the guitar.", "The stock market fell.", "naïve"]
    wanted = scores_of(model, replace(preprocessing, task="classify"), "embed", tf.constant(texts))
    exported = export(tmp_path / "1", "embed", preprocessing, model, examples=texts, expected=wanted)
    vectors = exported["serving_default"](text=tf.constant(texts))["vector"].numpy()
    assert vectors.shape == (4, 384)
    assert vectors[0] @ vectors[1] > 0.7 > 0.3 > vectors[0] @ vectors[2]
    assert exported["report"].check.run_difference <= 1e-5
