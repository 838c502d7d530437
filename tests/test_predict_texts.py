"""Predictions for texts: from Python and from the shell, on small runs that were written by hand."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

import tlkit
from tlkit import backbones, zoo
from tlkit.cli import main
from tlkit.config import HeadConfig, RunConfig
from tlkit.config.text import PorterStem, StopWords
from tlkit.errors import ConfigError, DataError
from tlkit.heads import make_head
from tlkit.model import build_model
from tlkit.preprocessing import make_tokenizer
from tlkit.preprocessing.nltk_steps import make_cleaner
from tlkit.results import RunFolder
from tlkit.workflows import Run
from tlkit.workflows.predict_files import read_text_inputs
from tlkit.zoo import TextInput, ZooEntry
from tlkit.zoo.entry import Tokenizer

FIXTURES = Path(__file__).parent / "fixtures" / "tokens"
FACTS = Tokenizer(kind="wordpiece", files=("wordpiece_vocab.txt",), lowercase=True, strip_accents=True)
CLASSES = ("bad", "good")
TAGS = ("B-PER", "I-PER", "O")
LENGTH = 12

Capture = pytest.CaptureFixture[str]


def write_run(folder: Path, task: str, classes: tuple[str, ...] | None, **settings: Any) -> Run:
    """A run folder with a model that was never trained."""
    entry = zoo.get("minilm_l6").model_copy(update={"input": TextInput(sequence_length=64, tokenizer=FACTS)})
    preprocessing = {"sequence_length": LENGTH, **settings}
    config = RunConfig.model_validate({"task": task, "backbone": "minilm_l6", "preprocessing": preprocessing})
    tokenizer = make_tokenizer(FACTS, FIXTURES)
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.start()
    run.config.write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")
    run.zoo_entry.write_text(json.dumps(entry.to_dict()), encoding="utf-8")
    if classes:
        run.labels.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    tokenizer.save(run.tokenizer)
    _make_model(entry, config, tokenizer.vocabulary_size, len(classes or "1")).save(run.model)
    return tlkit.load(folder)


def _make_model(entry: ZooEntry, config: RunConfig, vocabulary_size: int, n_outputs: int) -> keras.Model:
    keras.utils.set_random_seed(5)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    large = keras.initializers.RandomNormal(stddev=1.0)  # so that the answers depend on the text
    x = keras.layers.Embedding(vocabulary_size, 8, embeddings_initializer=large)(inputs["token_ids"])
    backbone = backbones.Backbone(entry, keras.Model(inputs, {"sequence": x}), {"sequence": x})
    vectors = config.objective == "embed"
    head = make_head(
        HeadConfig(),
        config.objective,
        n_outputs=None if vectors else n_outputs,
        targets=np.linspace(0, 5, 50) if vectors else None,
    )
    return build_model(backbone, head, words=config.task == "tokens")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    classes = {"classify": CLASSES, "pair": CLASSES, "tokens": TAGS, "embed": None}
    normalize = {"strip_html": True}
    return {
        task: write_run(folder / task, task, names, normalize=normalize) for task, names in classes.items()
    }


def document(capfd: Capture, *arguments: str | Path, code: int = 0) -> Any:
    """The JSON document that a command prints, which must be all that it prints on standard output."""
    capfd.readouterr()
    assert main([*map(str, arguments), "--json"]) == code
    return json.loads(capfd.readouterr().out)


def test_one_string_gives_one_answer_and_several_a_list(runs: dict[str, Run]) -> None:
    run = runs["classify"]
    one = run.predict("a fine film", top=1)
    assert set(one) == {"input", "label", "score", "scores", "top_k"}
    assert one["input"] == "a fine film"
    assert one["label"] in CLASSES
    assert len(one["top_k"]) == 1
    assert sum(one["scores"].values()) == pytest.approx(1, abs=1e-5)
    several = run.predict(["so so", "a fine film", b"caf\xe9"])
    assert [answer["input"] for answer in several] == ["so so", "a fine film", "caf\ufffd"]
    assert several[1]["scores"] == pytest.approx(one["scores"], abs=1e-6)
    assert several[0]["scores"] != pytest.approx(one["scores"], abs=1e-3)


def test_answers_come_in_the_order_of_the_texts(runs: dict[str, Run]) -> None:
    texts = ["word " * (n % 7 + 1) + f"{n}" for n in range(70)] + ["long " * 5000, "x"]
    answers = runs["classify"].predict(texts)
    assert [answer["input"] for answer in answers] == texts
    alone = [runs["classify"].predict(text)["score"] for text in texts[:3]]
    assert [answer["score"] for answer in answers[:3]] == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "is empty"),
        (" \n\t\u00a0", "is empty"),
        (None, "is missing"),
        (float("nan"), "is missing"),
        (7, "is no text but int"),
        ("<br> <p/>", "nothing is left of it after the preprocessing"),
    ],
)
def test_what_is_no_text_is_named_and_the_others_are_answered(
    runs: dict[str, Run], value: Any, reason: str
) -> None:
    fine, refused = runs["classify"].predict(["fine", value])
    assert fine["label"] in CLASSES
    assert refused["error"] == reason
    assert set(refused) == {"input", "error"}
    assert runs["classify"].predict(value)["error"] == reason


@pytest.mark.parametrize(
    "text", ["x" * 3_000_000, "שלום עולם", "half a pair \ud83d here", "a\u0000b", "[SEP]"]
)
def test_odd_texts_are_answered(runs: dict[str, Run], text: str) -> None:
    assert runs["classify"].predict(text)["label"] in CLASSES


def test_a_frame_has_the_columns_of_the_config(runs: dict[str, Run]) -> None:
    frame = pd.DataFrame({"text": ["one", None], "text_b": ["two", "three"], "tokens": [["a"], ["b", "c"]]})
    assert [a.get("error") for a in runs["classify"].predict(frame)] == [None, "is missing"]
    pairs = runs["pair"].predict(frame)
    assert (pairs[0]["input"], pairs[0]["input_b"]) == ("one", "two")
    assert pairs[1]["error"] == "the first text is missing"
    assert [len(answer["words"]) for answer in runs["tokens"].predict(frame)] == [1, 2]
    with pytest.raises(DataError, match="no column 'text' .*Did you mean 'texts'"):
        runs["classify"].predict(frame.rename(columns={"text": "texts"}))


def test_pairs_are_tuples_or_rows(runs: dict[str, Run]) -> None:
    run = runs["pair"]
    one = run.predict(("a b", "c"))
    assert (one["input"], one["input_b"]) == ("a b", "c")
    by_list = run.predict([("a b", "c"), ("c", "a b")])
    by_array = run.predict(np.array([["a b", "c"], ["c", "a b"]]))
    assert by_list == by_array
    assert by_list[0]["scores"] == pytest.approx(one["scores"], abs=1e-6)
    refused = run.predict(["alone", ("a", ""), ("a", "b", "c")])
    assert [answer["error"] for answer in refused] == [
        "is no pair: expected a tuple of two texts",
        "the second text is empty",
        "is no pair: expected a tuple of two texts",
    ]


def test_vectors_are_of_single_texts(runs: dict[str, Run]) -> None:
    one, two = runs["embed"].predict(["a b", "c"])
    assert set(one) == {"input", "vector"}
    assert np.linalg.norm(one["vector"]) == pytest.approx(1, abs=1e-5)
    assert runs["embed"].predict("c")["vector"] == pytest.approx(two["vector"], abs=1e-6)


def test_words_have_places_in_the_string_as_sent(runs: dict[str, Run]) -> None:
    text = "  👍🏽 naïve\u00a0Ünïcode,  x "
    answer = runs["tokens"].predict(text)
    assert set(answer) == {"input", "words", "entities"}
    assert [text[word["start"] : word["end"]] for word in answer["words"]] == [
        w["word"] for w in answer["words"]
    ]
    assert [word["word"] for word in answer["words"]] == ["👍🏽", "naïve", "Ünïcode", ",", "x"]
    assert {word["tag"] for word in answer["words"]} <= set(TAGS)
    for entity in answer["entities"]:
        assert entity["type"] == "PER"
        assert text[entity["start"] : entity["end"]] == entity["text"]
    json.dumps(answer)


def test_words_that_are_split_already_are_kept(runs: dict[str, Run]) -> None:
    sentences = [["New-York", "is", "it"], "New-York is it", [], ["a", None]]
    split, found, *refused = runs["tokens"].predict(sentences)
    assert [word["word"] for word in split["words"]] == ["New-York", "is", "it"]
    assert [(word["start"], word["end"]) for word in split["words"]] == [(0, 1), (1, 2), (2, 3)]
    assert [word["tag"] for word in split["words"]] == [word["tag"] for word in found["words"]]
    assert [answer["error"] for answer in refused] == ["has no words", "word 2 is missing"]


def test_words_without_room_are_outside(runs: dict[str, Run]) -> None:
    words = runs["tokens"].predict("word " * 30)["words"]
    assert len(words) == 30
    assert {(word["tag"], word["score"]) for word in words[LENGTH - 2 :]} == {("O", 0.0)}
    assert words[0]["score"] > 0


def test_predict_and_export_say_the_same_about_words(runs: dict[str, Run]) -> None:
    from tlkit.workflows.predict_describe import describe_words

    described = describe_words(
        ["Ada", "L", "x", "Bob"], ["B-PER", "I-PER", "O", "I-PER"], [0.9, 0.8, 0.7, 0.6], None, None, TAGS
    )
    assert described["entities"] == [
        {"type": "PER", "text": "Ada L", "start": 0, "end": 2, "score": 0.8},
        {"type": "PER", "text": "Bob", "start": 3, "end": 4, "score": 0.6},
    ]
    assert describe_words(["a"], ["NN-P"], [1.0], None, None, ("NN-P", "X"))["entities"] == []


def test_texts_from_the_shell(runs: dict[str, Run], tmp_path: Path, capfd: Capture) -> None:
    run = runs["classify"].path
    (tmp_path / "one.txt").write_text("a text\nof two lines", encoding="utf-8")
    (tmp_path / "some.csv").write_text('text,review\n1,"fine, really"\n2,\n', encoding="utf-8")
    texts = ["--text", "good", "--text", "-- bad"]
    answers = document(
        capfd, "predict", run, *texts, tmp_path / "one.txt", tmp_path / "some.csv", "--column", "review"
    )
    assert [answer["input"] for answer in answers] == [
        "good",
        "-- bad",
        "a text\nof two lines",
        "fine, really",
        "",
    ]
    assert answers[-1]["error"] == "is empty"
    assert main(["predict", str(run), str(tmp_path / "some.csv"), "--column", "revue"]) == 2
    assert "Did you mean 'review'?" in capfd.readouterr().err


def test_standard_input_has_a_text_per_line(
    runs: dict[str, Run], capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    give("first\r\nzweité\n\nlast".encode())
    answers = document(capfd, "predict", runs["classify"].path, "-")
    assert [answer["input"] for answer in answers] == ["first", "zweité", "", "last"]
    give(b"a b\tc\nalone\n")
    answers = document(capfd, "predict", runs["pair"].path, "-")
    assert (answers[0]["input"], answers[0]["input_b"]) == ("a b", "c")
    assert "is no pair" in answers[1]["error"]


def test_csv_is_whole_and_tables_are_short(runs: dict[str, Run], capfd: Capture) -> None:
    text = "a long text " * 20 + "\nsecond line"
    arguments = ["predict", str(runs["classify"].path), "--text", text, "--text", "short"]
    assert main([*arguments, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert [row["input"] for row in rows] == [text, "short"]
    assert main(arguments) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["input", "label", "score"]
    assert len(lines) == 3
    assert "…" in lines[1]
    assert main(["predict", str(runs["embed"].path), "--text", "x"]) == 0
    assert "(8 numbers)" in capfd.readouterr().out
    assert main(["predict", str(runs["tokens"].path), "--text", "Ada x", "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capfd.readouterr().out))
    assert set(row) == {"input", "entities", "tags"}
    assert len(row["tags"].split()) == 2


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("classify", [], "nothing to predict"),
        ("classify", ["missing.txt"], "no such file or folder. A text itself goes after --text"),
        ("classify", ["photo.png"], "neither a table"),
        ("classify", ["--text", "a", "--text-b", "b"], "this run's task is classify"),
        ("pair", ["--text", "a"], "received 1 and 0"),
        ("classify", ["--text", "", "--text", " "], "No input could be used: is empty"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    runs: dict[str, Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
    task: str,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(b"")
    assert main(["predict", str(runs[task].path), *arguments]) == 2
    assert message in capfd.readouterr().err


def test_tables_of_words_and_folders_of_texts(runs: dict[str, Run], tmp_path: Path) -> None:
    (tmp_path / "sentences.csv").write_text('tokens,other\nAda lives,x y z\n"[""a b"", ""c""]",x\n')
    read = read_text_inputs(runs["tokens"], [str(tmp_path / "sentences.csv")])
    assert read == [["Ada", "lives"], ["a b", "c"]]
    assert read_text_inputs(runs["tokens"], [str(tmp_path / "sentences.csv")], column="other") == [
        "x y z",
        "x",
    ]
    with pytest.raises(DataError, match=r"holds no \.txt file"):
        read_text_inputs(runs["classify"], [str(tmp_path)])
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "a.txt").write_text("a")
    answers = runs["classify"].predict(read_text_inputs(runs["classify"], [str(tmp_path)]))
    assert [answer["input"] for answer in answers] == ["a", "b"]


def test_texts_are_no_input_of_a_run_on_pictures(runs: dict[str, Run], capfd: Capture) -> None:
    with pytest.raises(ConfigError, match="A second text is for task pair"):
        read_text_inputs(runs["embed"], texts=["a"], texts_b=["b"])
    with pytest.raises(DataError, match="Cannot predict from a dict"):
        runs["classify"].predict({"text": "a"})


def test_steps_of_the_client_run_before_the_graph(
    runs: dict[str, Run], shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NLTK_DATA", str(shared_data / "nltk_data"))  # has the stop words
    run = replace(runs["classify"])
    cleaner = make_cleaner([StopWords(), PorterStem()])
    run.__dict__["preprocessing"] = replace(run.preprocessing, clean=cleaner)
    texts = ["the films were boring", "the of and"]
    answer, refused = run.predict(texts)
    (plain,) = runs["classify"].predict(cleaner(texts)[:1])
    assert answer["scores"] == pytest.approx(plain["scores"], abs=1e-6)
    assert answer["scores"] != pytest.approx(runs["classify"].predict(texts[0])["scores"], abs=1e-3)
    assert answer["input"] == texts[0]
    assert refused["error"] == "nothing is left of it after the preprocessing"
