"""Whole runs on small texts: every task from a table to a run folder, its answers and its export."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml

import tlkit
from tlkit.cli import main
from tlkit.config import load_config
from tlkit.data.pipeline import make_pipeline
from tlkit.errors import ConfigError
from tlkit.workflows import plan_finetune
from tlkit.workflows.prepare import prepare

from conftest import make_pictures

BERT = str(Path(__file__).parent / "fixtures" / "text" / "bert")
SETTINGS: dict[str, Any] = {
    "backbone": BERT,
    "sequence_length": 16,
    "batch_size": 8,
    "epochs": 1,
    "plan": "full",
    "augment": "none",
    "export": False,
}
SHELL = ["--backbone", BERT, "--sequence-length", "16", "--batch-size", "8", "--epochs", "1", "export=false"]
SHARES = {"split": {"validation": 0.2, "test": 0.2}}

Capture = pytest.CaptureFixture[str]


def make_sentences(n: int = 48, seed: int = 0) -> list[str]:
    """`n` different texts of 2 to 12 words; every second one is about a dog, the others about a cat."""
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    found: dict[str, None] = {}
    while len(found) < n:
        animal = ("cat", "dog")[len(found) % 2]
        words = ["".join(draw.choices(letters, k=draw.randint(1, 3))) for _ in range(draw.randint(0, 9))]
        found[" ".join(["the", animal, *words, "."])] = None
    return list(found)


def write_table(path: Path, **columns: Any) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def animals(texts: list[str]) -> list[str]:
    return [text.split()[1] for text in texts]


def write_task_tables(
    folder: Path,
    texts: list[str],
    others: list[str],
    *,
    both: list[str],
    scores: list[float],
    words: list[list[str]],
    tags: list[list[str]],
) -> dict[str, Path]:
    """A table for every task. `others` are the second texts of pairs, `both` the labels of `multilabel`."""
    same = [first == second for first, second in zip(animals(texts), animals(others), strict=True)]
    pairs = {"text": texts, "text_b": others}
    return {
        "classify": write_table(folder / "classify.csv", text=texts, label=animals(texts)),
        "multilabel": write_table(folder / "multilabel.csv", text=texts, label=both),
        "regress": write_table(folder / "regress.csv", text=texts, label=scores),
        "pair": write_table(folder / "pair.csv", **pairs, label=["same" if one else "other" for one in same]),
        "pair_numbers": write_table(folder / "pair_numbers.csv", **pairs, label=scores),
        "tokens": write_table(
            folder / "tokens.csv",
            tokens=[json.dumps(row) for row in words],
            label=[" ".join(row) for row in tags],
        ),
        "embed": write_table(folder / "embed.csv", **pairs, label=scores),
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tables")
    texts, others = make_sentences(), make_sentences(seed=1)
    random.Random(2).shuffle(others)
    scores = [round(5 * len(text) / 60, 2) + 0.01 for text in texts]
    both = ["cat|long" if len(text) > 25 else "cat" if "cat" in text else "" for text in texts]
    draw = random.Random(0)
    words = [[*text.split()[:-1], draw.choice(["house", "a", "b"])] for text in texts]
    tags = [
        ["O", f"B-{row[1].upper()}", *["I-" + row[1].upper() if k == 0 else "O" for k in range(len(row) - 2)]]
        for row in words
    ]
    conll = folder / "words.conll"
    conll.write_text(
        "\n".join(
            "".join(f"{w}\t{t}\n" for w, t in zip(*pair, strict=True))
            for pair in zip(words, tags, strict=True)
        ),
        encoding="utf-8",
    )
    written = write_task_tables(folder, texts, others, both=both, scores=scores, words=words, tags=tags)
    return {
        **written,
        "tokens": conll,
        "tokens_table": written["tokens"],
        "embed_pairs": write_table(folder / "embed_pairs.csv", text=texts, text_b=others),
    }


def finetune(data: Any, out: Path, **settings: Any) -> Any:
    return tlkit.finetune(data, out=out, config={"data": SHARES}, **{**SETTINGS, **settings})


def stage_groups(run: Any) -> list[list[str]]:
    return [stage["trained_groups"] for stage in json.loads((run.path / "result.json").read_text())["stages"]]


@pytest.fixture(scope="module")
def runs(tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run per kind of answer, each with its export."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        task: finetune(tables[task], folder / task, task=task, export=True)
        for task in ("classify", "pair", "tokens", "embed")
    }


METRICS = {"classify": "accuracy", "pair": "accuracy", "tokens": "entity_f1", "embed": "spearman"}
ONE = {"classify": "the cat", "pair": ("the cat", "a dog"), "tokens": "the cat .", "embed": "the cat"}


@pytest.mark.parametrize("task", METRICS)
def test_evaluating_a_run_again_gives_the_metrics_of_its_result(runs: dict[str, Any], task: str) -> None:
    run = tlkit.load(runs[task].path)
    written = json.loads((run.path / "result.json").read_text())["metrics"]["test"]
    assert METRICS[task] in written
    again = run.evaluate()
    assert set(again) == set(written)
    for name, value in written.items():
        if isinstance(value, float):
            assert again[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        elif not isinstance(value, dict):
            assert again[name] == value, name


@pytest.mark.parametrize("task", METRICS)
def test_a_loaded_run_answers_like_the_one_that_was_trained(runs: dict[str, Any], task: str) -> None:
    held, read = runs[task].predict(ONE[task]), tlkit.load(runs[task].path).predict(ONE[task])
    assert set(held) == set(read)
    if task == "tokens":
        assert [word["tag"] for word in held["words"]] == [word["tag"] for word in read["words"]]
        assert [word["word"] for word in held["words"]] == ["the", "cat", "."]
    elif task == "embed":
        np.testing.assert_allclose(held["vector"], read["vector"], atol=1e-5)
        assert np.linalg.norm(held["vector"]) == pytest.approx(1, abs=1e-5)
    else:
        assert held["label"] == read["label"]
        assert held["scores"] == pytest.approx(read["scores"], abs=1e-5)


@pytest.mark.parametrize("task", METRICS)
def test_an_exported_model_of_texts_answers_like_its_run(runs: dict[str, Any], task: str) -> None:
    run = runs[task]
    loaded = tf.saved_model.load(str(run.path / "export"))
    served = loaded.signatures["serving_default"]
    answer = run.predict(ONE[task])
    if task == "pair":
        given = served(text=tf.constant([ONE[task][0]]), text_b=tf.constant([ONE[task][1]]))
    else:
        given = served(text=tf.constant([ONE[task]]))
    if task == "tokens":
        assert [tag.decode() for tag in np.ravel(given["tags"])] == [word["tag"] for word in answer["words"]]
        assert "words" in loaded.signatures
    elif task == "embed":
        (vectors,) = [value for name, value in given.items() if value.dtype == tf.float32]
        np.testing.assert_allclose(vectors[0], answer["vector"], atol=1e-5)
    else:
        assert given["label"].numpy()[0].decode() == answer["label"]
        np.testing.assert_allclose(given["scores"][0], list(answer["scores"].values()), atol=1e-5)


def test_a_run_on_texts_leaves_its_vocabulary_and_its_length_behind(runs: dict[str, Any]) -> None:
    run = runs["classify"]
    assert (run.path / "tokenizer" / "vocab.txt").is_file()
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["preprocessing"]["sequence_length"] == 16
    assert config["backbone"] == BERT
    manifest = pd.read_csv(run.path / "manifest.csv")
    assert {"id", "text", "label", "split"} <= set(manifest)
    assert sorted(manifest["text"]) == sorted(make_sentences())
    assert list(manifest["split"].value_counts().sort_index()) == pytest.approx([10, 28, 10], abs=2)
    report = pd.read_csv(run.path / "data_report.csv")
    assert report["problem"].str.contains("longer than 16 tokens").any()
    stored = np.load(run.path / "outputs.npz")
    assert len(stored["outputs"]) == (manifest["split"] != "train").sum()


@pytest.mark.parametrize(
    ("table", "task", "metric"),
    [
        ("multilabel", "multilabel", "f1_micro"),
        pytest.param("regress", "regress", "r2", marks=pytest.mark.slow),
        ("pair_numbers", "pair", "r2"),
        ("tokens_table", "tokens", "entity_f1"),
        ("embed_pairs", "embed", "loss"),
    ],
)
def test_the_other_forms_of_data_train_and_answer(
    tables: dict[str, Path], tmp_path: Path, table: str, task: str, metric: str
) -> None:
    run = finetune(tables[table], tmp_path / "run", task=task)
    assert metric in run.metrics, run.metrics
    assert np.isfinite(run.metrics[metric])
    assert np.isfinite(run.history["loss"]).all()
    answer = tlkit.load(run.path).predict(ONE.get(task, "the cat"))
    assert "error" not in answer
    if table == "pair_numbers":
        assert run.config.head.pair == "regress"
        assert isinstance(answer["value"], float)


@pytest.mark.slow
def test_more_passes_over_clear_texts_are_learned(tables: dict[str, Path], tmp_path: Path) -> None:
    run = finetune(tables["classify"], tmp_path / "run", epochs=12, learning_rate=0.01)
    assert run.metrics["accuracy"] >= 0.9
    assert run.predict(["the cat a b .", "the dog a b ."])[1]["label"] == "dog"


@pytest.mark.parametrize(
    ("plan", "groups"),
    [
        ("top", 2),
        pytest.param("gradual", None, marks=pytest.mark.slow),
    ],
)
def test_what_a_plan_keeps_frozen_stays_as_it_was(
    tables: dict[str, Path], tmp_path: Path, plan: Any, groups: int | None
) -> None:
    run = finetune(tables["classify"], tmp_path / "run", plan=plan)
    stages = json.loads((run.path / "result.json").read_text())["stages"]
    assert all(stage["frozen_unchanged"] is True for stage in stages)
    trained = [set(stage["trained_groups"]) for stage in stages]
    assert trained == sorted(trained, key=len)
    named = set().union(*trained) - {"head"}
    assert named <= {"embeddings", "block_1", "block_2", "layer1", "layer2", "block0", "block1", "block2"}, (
        named
    )
    assert "embeddings" not in trained[0]


def test_windows_see_all_of_a_long_text(tables: dict[str, Path], tmp_path: Path) -> None:
    run = finetune(
        tables["classify"], tmp_path / "run", preprocessing={"long_texts": "windows"}, sequence_length=8
    )
    assert np.isfinite(run.metrics["loss"])
    start = "the cat " + "a b c " * 4
    one, other = run.predict([start + "dog .", start + "house ."])
    assert one["scores"] != pytest.approx(other["scores"], abs=1e-7)


def test_the_first_token_pools_through_the_backbones_own_pooler(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    run = finetune(tables["classify"], tmp_path / "run", head={"pooling": "cls"})
    assert "pooler" in stage_groups(run)[-1]
    assert "pooled" in run.backbone_model.output
    assert tlkit.load(run.path).predict("the cat")["scores"] == pytest.approx(
        run.predict("the cat")["scores"], abs=1e-5
    )


def test_the_mean_leaves_the_pooler_out(runs: dict[str, Any]) -> None:
    assert "pooler" not in stage_groups(runs["classify"])[-1]
    assert "pooled" not in runs["classify"].backbone_model.output


def test_nltk_steps_are_part_of_the_run_but_not_of_an_export(
    shared_data: Path,
    tables: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
) -> None:
    if not (shared_data / "nltk_data").is_dir():
        pytest.skip("no nltk_data in the shared data")
    monkeypatch.setenv("NLTK_DATA", str(shared_data / "nltk_data"))
    steps = ["word_tokenize", {"name": "stop_words"}]
    run = finetune(tables["classify"], tmp_path / "run", export=True, preprocessing={"nltk": steps})
    assert "--client-preprocessing" in "".join(capfd.readouterr())
    assert not (run.path / "export").exists()
    loaded = tlkit.load(run.path)
    plain, without = loaded.predict(["the cat of the house", "cat house"])
    assert plain["scores"] == pytest.approx(without["scores"], abs=1e-6)
    assert loaded.evaluate()["accuracy"] == pytest.approx(run.metrics["accuracy"])
    with pytest.raises(ConfigError, match="client.preprocessing"):
        loaded.export(tmp_path / "sm")
    assert not (tmp_path / "sm").exists()
    loaded.export(tmp_path / "sm", client_preprocessing=True)
    described = json.loads((tmp_path / "sm" / "assets" / "input.json").read_text())
    first, second = described["client_steps"]
    assert "word_tokenize" in first
    assert "nltk.corpus.stopwords" in second


def test_two_settings_are_compared_from_the_shell(
    tables: dict[str, Path], tmp_path: Path, capfd: Capture
) -> None:
    out = tmp_path / "run"
    command = ["finetune", "--data", str(tables["classify"]), *SHELL, "--plan", "head", "--out", str(out)]
    assert main([*command, "--compare", "preprocessing.sequence_length=8", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["changes"] == ["preprocessing.sequence_length=8"]
    assert document["run"] == str(out)
    assert Path(document["other"]) != out
    lengths = [
        yaml.safe_load(Path(document[name], "config.yaml").read_text())["preprocessing"]["sequence_length"]
        for name in ("run", "other")
    ]
    assert lengths == [16, 8]
    mine, others = document["metrics"]
    assert document["differences"]["loss"] == pytest.approx(mine["loss"] - others["loss"])
    splits = [
        pd.read_csv(Path(document[name], "manifest.csv"))["split"].tolist() for name in ("run", "other")
    ]
    assert splits[0] == splits[1]


def test_a_comparison_that_has_no_room_for_its_second_run_does_not_begin(
    tables: dict[str, Path], tmp_path: Path, capfd: Capture
) -> None:
    taken = tmp_path / "run-compared"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    command = ["finetune", "--data", str(tables["classify"]), *SHELL, "--out", str(tmp_path / "run")]
    assert main([*command, "--compare", "seed=1"]) == 2
    assert "run-compared is not empty" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "backbone",
    [
        "text_cnn",
        pytest.param("text_mlp", marks=pytest.mark.slow),
        pytest.param("text_bilstm", marks=pytest.mark.slow),
    ],
)
def test_a_backbone_from_scratch_learns_its_vocabulary_and_is_shaped_by_the_config(
    tables: dict[str, Path], tmp_path: Path, backbone: str
) -> None:
    shape = {"layers": 1, "width": 6, "embedding_size": 5, "vocabulary_size": 40, "activation": "tanh"}
    export = backbone == "text_cnn"  # the exports of the others have the same parts
    run = finetune(tables["classify"], tmp_path / "run", backbone=backbone, architecture=shape, export=export)
    sizes = [tuple(weight.shape) for weight in run.backbone_model.weights]
    assert sizes[0] == (40, 5), sizes
    assert all(set(size) & {5, 6, 12, 24} for size in sizes)
    assert "layer2" not in [layer.name for layer in run.backbone_model.layers]
    loaded = tlkit.load(run.path)
    assert loaded.predict("the cat")["scores"] == pytest.approx(run.predict("the cat")["scores"], abs=1e-5)
    assert loaded.evaluate()["accuracy"] == pytest.approx(run.metrics["accuracy"])


def test_an_image_backbone_from_scratch_trains_too(tmp_path: Path) -> None:
    photos = make_pictures(tmp_path / "photos")
    run = tlkit.finetune(
        photos, "image_cnn", image_size=32, epochs=1, batch_size=12, export=False, out=tmp_path / "run",
        architecture={"layers": 2, "width": 4},
    )  # fmt: skip
    assert run.backbone_model.output_shape[-1] == 8
    assert 0 <= run.metrics["accuracy"] <= 1


def test_an_earlier_run_is_the_backbone_of_another_task(
    runs: dict[str, Any], tables: dict[str, Path], tmp_path: Path
) -> None:
    first = runs["classify"]
    second = finetune(tables["tokens"], tmp_path / "second", task="tokens", backbone=first, plan="head")
    assert second.config.backbone == str(first.path)
    for old, new in zip(first.backbone_model.weights, second.backbone_model.weights, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    third = finetune(tables["regress"], tmp_path / "third", task="regress", backbone=str(second.path))
    assert np.isfinite(third.metrics["r2"])


def test_a_run_from_scratch_is_a_backbone_with_its_vocabulary(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    first = finetune(tables["classify"], tmp_path / "first", backbone="text_cnn")
    second = finetune(tables["regress"], tmp_path / "second", task="regress", backbone=first, plan="head")
    vocabularies = [sorted((run.path / "tokenizer").iterdir()) for run in (first, second)]
    assert [file.read_bytes() for file in vocabularies[0]] == [file.read_bytes() for file in vocabularies[1]]


def seen_in_an_epoch(table: Path, **training: Any) -> tuple[list[tuple[Any, ...]], list[tuple[int, ...]]]:
    """Tokens and target of each example that an epoch trains on, sorted; and the shapes of its batches."""
    bucketing = training.pop("bucketing", True)
    tree = {
        "data": {"source": str(table), **SHARES},
        "backbone": BERT,
        "plan": "head",
        "preprocessing": {"sequence_length": 30, "bucketing": bucketing, "augment": "none"},
        "training": {"global_batch_size": 8, **training},
    }
    run = prepare(load_config(tree).config).trainable
    batches = list(
        make_pipeline(
            run.dataset.splits["train"],
            run.preprocessing,
            global_batch_size=run.global_batch_size,
            batch_tokens=run.training.batch_tokens,
            training=True,
        )
    )
    assert run.steps_per_epoch == len(batches)
    shapes = [tuple(inputs["token_ids"].shape) for inputs, _ in batches]
    rows = [
        (*ids[mask == 1].tolist(), int(target))
        for inputs, targets in batches
        for ids, mask, target in zip(
            inputs["token_ids"].numpy(), inputs["padding_mask"].numpy(), targets.numpy(), strict=True
        )
    ]
    return sorted(rows), shapes


def test_an_epoch_has_every_text_once_however_its_batches_are_made(tables: dict[str, Path]) -> None:
    bucketed, shapes = seen_in_an_epoch(tables["classify"])
    plain, plain_shapes = seen_in_an_epoch(tables["classify"], bucketing=False)
    by_tokens, token_shapes = seen_in_an_epoch(tables["classify"], batch_tokens=128)
    assert bucketed == plain == by_tokens
    assert len(bucketed) == len(set(bucketed)) == 28
    assert [rows for rows, _ in shapes].count(8) == [rows for rows, _ in plain_shapes].count(8) == 3
    assert max(length for _, length in plain_shapes) > min(length for _, length in shapes)
    assert all(rows * length <= 128 for rows, length in token_shapes)
    assert len({rows for rows, _ in token_shapes}) > 1


def test_a_run_may_count_its_batches_in_tokens(tables: dict[str, Path], tmp_path: Path) -> None:
    run = finetune(tables["classify"], tmp_path / "run", training={"batch_tokens": 64}, plan="head")
    assert np.isfinite(run.metrics["loss"])
    assert run.config.training.batch_tokens == 64


def test_a_dry_run_shows_groups_and_stages_and_writes_nothing(
    tables: dict[str, Path], tmp_path: Path, capfd: Capture
) -> None:
    out = tmp_path / "run"
    assert (
        main(
            ["finetune", "--data", str(tables["classify"]), *SHELL, "--out", str(out), "--dry-run", "--json"]
        )
        == 0
    )
    plan = json.loads(capfd.readouterr().out)
    assert plan["config"]["preprocessing"]["sequence_length"] == 16
    assert plan["groups"][0]["name"] == "embeddings"
    assert [stage["train"] for stage in plan["stages"]] == ["all"]
    assert plan["stages"][0]["seconds_estimate"] > 0
    assert not out.exists()
    options = {"data.source": str(tables["tokens"]), "task": "tokens", "backbone": BERT, "training.epochs": 1}
    dry = plan_finetune(load_config({"data": SHARES, "plan": "head_then_all"}, options=options).config)
    assert len(dry.stages) > 1
    assert dry.config.preprocessing.sequence_length is not None


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import tlkit
out, backbone, *tables = sys.argv[1:]
for table, task, one in zip(tables, ("classify", "tokens"), ("the cat", "the cat .")):
    run = tlkit.finetune(
        table, backbone, task=task, strategy="mirrored", sequence_length=16, batch_size=8, epochs=1,
        augment="none", export=False, out=f"{out}/{task}",
    )
    held, read = run.predict(one), tlkit.load(run.path).predict(one)
    if task == "classify":
        assert all(abs(held["scores"][name] - read["scores"][name]) < 1e-5 for name in run.classes)
    else:
        assert [word["tag"] for word in held["words"]] == [word["tag"] for word in read["words"]]
    assert abs(tlkit.load(run.path).evaluate()["loss"] - run.metrics["loss"]) < 1e-4
"""


@pytest.mark.slow
def test_two_replicas_train_on_texts_and_on_words(tables: dict[str, Path], tmp_path: Path) -> None:
    arguments = [str(tmp_path), BERT, str(tables["classify"]), str(tables["tokens"])]
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


TWICE = """
import sys
import tlkit
out, backbone, table = sys.argv[1:]
for name in ("a", "b"):
    tlkit.finetune(
        table, backbone, sequence_length=16, batch_size=8, epochs=2, deterministic=True, export=False,
        out=f"{out}/{name}",
    )
"""


@pytest.mark.slow
def test_two_deterministic_runs_on_texts_are_bit_identical(tables: dict[str, Path], tmp_path: Path) -> None:
    arguments = [str(tmp_path), BERT, str(tables["classify"])]
    done = subprocess.run(
        [sys.executable, "-c", TWICE, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    a, b = (np.load(tmp_path / name / "outputs.npz") for name in ("a", "b"))
    np.testing.assert_array_equal(a["outputs"], b["outputs"])
    results = [json.loads((tmp_path / name / "result.json").read_text())["metrics"] for name in ("a", "b")]
    assert results[0] == results[1]


def fails(capfd: Capture, data: Path, *arguments: str, code: int = 2, backbone: str = BERT) -> str:
    """The one line that a fine-tuning that must fail prints, of which nothing may be left behind."""
    out = data.parent / "run"
    capfd.readouterr()
    command = ["finetune", "--data", str(data), "--backbone", backbone, "--out", str(out), *arguments]
    returned = main([*command, "--epochs", "1", "export=false"])
    captured = capfd.readouterr()
    assert returned == code, captured.err
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line]
    assert sum(line.startswith("Error: ") for line in lines) == 1, captured.err
    assert lines[-1].startswith("Error: ")
    assert captured.out == ""
    assert not out.exists()
    return lines[-1]


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    texts = make_sentences(30)
    return write_table(tmp_path / "reviews.csv", text=texts, label=animals(texts))


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path, capfd: Capture) -> None:
    texts = make_sentences(20)
    table = write_table(tmp_path / "t.csv", texts=texts, label=animals(texts), stars=range(20))
    error = fails(capfd, table)
    assert "'text'" in error
    assert "Did you mean 'texts'?" in error
    assert "stars" in error
    assert "'labl'" in fails(capfd, table, "data.columns.text=texts", "data.columns.label=labl")


def test_broken_quotes_and_encodings_are_found_with_their_line(tmp_path: Path, capfd: Capture) -> None:
    table = tmp_path / "t.csv"
    table.write_text('text,label\nfine,a\n"never closed,b\nmore,a\nmore,b\n')
    assert "line 3" in fails(capfd, table)
    table.write_bytes("text,label\nfine,a\nschön,b\n".encode("latin-1"))
    error = fails(capfd, table)
    assert "line 3" in error
    assert "UTF-8" in error
    table.write_bytes("text,label\nfine,a\n".encode("utf-16"))
    assert "UTF-16" in fails(capfd, table)
    table.write_text("text,label\n")
    assert "no rows" in fails(capfd, table)
    table.write_text("")
    assert "empty" in fails(capfd, table)


def test_texts_that_are_all_empty_are_one_line(tmp_path: Path, capfd: Capture) -> None:
    table = write_table(tmp_path / "t.csv", text=["", " ", "\t"] * 4, label=["a", "b"] * 6)
    assert "no text can be used" in fails(capfd, table, code=3)
    pair = write_table(tmp_path / "p.csv", text=["x"] * 12, text_b=[""] * 12, label=["a", "b"] * 6)
    assert "no text can be used" in fails(capfd, pair, "--task", "pair", code=3)


def test_labels_that_differ_in_case_are_reported_and_merged_when_told_to(tmp_path: Path) -> None:
    texts = make_sentences(40)
    labels = [
        name.title() if k % 8 == 0 else f" {name}" if k % 8 == 1 else name
        for k, name in enumerate(animals(texts))
    ]
    table = write_table(tmp_path / "t.csv", text=texts, label=labels)
    apart = finetune(table, tmp_path / "apart", plan="head")
    assert apart.classes == ("Cat", "cat", "dog")
    report = pd.read_csv(tmp_path / "apart" / "data_report.csv")
    assert report["problem"].str.contains("differ only in case").any()
    assert report["problem"].str.contains("spaces around it").any()
    merged = tlkit.finetune(
        table,
        **{**SETTINGS, "plan": "head"},
        out=tmp_path / "merged",
        config={"data": {**SHARES, "merge_labels": True}},
    )
    assert merged.classes == ("cat", "dog")
    assert merged.evaluate()["loss"] == pytest.approx(merged.metrics["loss"], rel=1e-4)


def test_tags_that_cannot_be_and_counts_that_differ_are_in_the_report(tmp_path: Path, capfd: Capture) -> None:
    sentences = [text.split() for text in make_sentences(40)]
    tags = [["O", "B-X", *["O"] * (len(words) - 2)] for words in sentences]
    tags[3][0], tags[3][1] = "I-X", "O"  # no entity began
    tags[5] = tags[5][:-1]
    table = write_table(
        tmp_path / "t.csv",
        tokens=[" ".join(words) for words in sentences],
        label=[" ".join(row) for row in tags],
    )
    run = finetune(table, tmp_path / "fine", task="tokens", plan="head")
    report = pd.read_csv(run.path / "data_report.csv").set_index("path")["problem"]
    assert "continues an entity that did not begin" in report["line 5"]
    assert f"has {len(sentences[5])} words and {len(sentences[5]) - 1} tags" in report["line 7"]
    worse = write_table(
        tmp_path / "w.csv", tokens=[" ".join(words) for words in sentences], label=["O"] * len(sentences)
    )
    assert "words and 1 tags" in fails(capfd, worse, "--task", "tokens", code=3)


def test_odd_texts_are_trained_on_like_any_other(tmp_path: Path) -> None:
    texts = make_sentences(40)
    texts[0] = "the cat " * (10 * 2**20 // 8)
    texts[1] = "the dog \0 \0"
    texts[2] = "the cat שלום עולם مرحبا \u202eabc\u202c"
    texts[3] = "the dog 你好 👍🏽 \u200f"
    frame = pd.DataFrame({"text": texts, "label": animals(texts)})
    run = finetune(frame, tmp_path / "run", plan="head", sequence_length=None)
    assert np.isfinite(run.metrics["loss"])
    table = pd.read_csv(run.path / "manifest.csv", lineterminator="\n")
    assert len(table) == 40
    assert (table["split"].isin(["train", "validation", "test"])).all()
    report = pd.read_csv(run.path / "data_report.csv", lineterminator="\n")
    assert report["problem"].str.contains("NUL").any()
    answers = run.predict(texts[:4])
    assert all("error" not in answer for answer in answers)
    csv = tmp_path / "t.csv"
    frame.to_csv(csv, index=False)
    again = finetune(csv, tmp_path / "again", plan="head")
    assert np.isfinite(again.metrics["loss"])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--image-size", "64"], ["preprocessing.image_size", "texts"]),
        (["preprocessing.resize=crop"], ["preprocessing.resize"]),
        (["--sequence-length", "41"], ["41", "40"]),
        (["preprocessing.augment=[random_flip]"], ["random_flip"]),
        (["architecture.width=8"], ["pretrained", "width"]),
        (["--task", "tokens", "preprocessing.nltk=[porter]"], ["nltk", "tokens"]),
        (["--task", "pair", "preprocessing.long_texts=windows"], ["windows"]),
        (["--task", "tokens", "preprocessing.long_texts=windows"], ["windows"]),
        (["--task", "embed", "preprocessing.long_texts=windows"], ["windows"]),
        (["head.pooling=avg_max"], ["avg_max"]),
        (["head.loss=cosent"], ["cosent"]),
        (["--task", "regress"], ["needs numbers"]),
        (["--task", "pair"], ["text_b"]),
        (["--task", "tokens"], ["tokens"]),
        (["preprocessing.nltk=[portr]"], ["Did you mean 'porter'?"]),
        (["data.split.validation=0.9"], ["validation + test"]),
        (["data.split.group_by=stars"], ["stars"]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else "",
)
def test_what_does_not_fit_texts_is_said_before_anything_is_written(
    reviews: Path, capfd: Capture, arguments: list[str], parts: list[str]
) -> None:
    if any("windows" in argument for argument in arguments):
        columns = pd.read_csv(reviews)
        columns["text_b"] = columns["tokens"] = columns["text"]
        if "tokens" in arguments:
            columns["label"] = [
                " ".join(["B-X", *["O"] * (len(text.split()) - 1)]) for text in columns["text"]
            ]
        if "embed" in arguments:
            columns["label"] = np.linspace(0, 1, len(columns))
        columns.to_csv(reviews, index=False)
    error = fails(capfd, reviews, *arguments)
    assert all(part in error for part in parts), error


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--sequence-length", "16"], ["preprocessing.sequence_length", "pictures"]),
        (["preprocessing.long_texts=tail"], ["preprocessing.long_texts"]),
        (["preprocessing.nltk=[porter]"], ["preprocessing.nltk"]),
        (["preprocessing.normalize.lowercase=true"], ["preprocessing.normalize"]),
        (["training.batch_tokens=64"], ["training.batch_tokens"]),
        (["preprocessing.augment=[random_swap]"], ["random_swap"]),
        (["--task", "pair"], ["texts"]),
        (["head.pooling=cls"], ["cls"]),
        (["architecture.embedding_size=8"], ["has no embedding_size"]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else "",
)
def test_what_does_not_fit_pictures_is_said_before_anything_is_written(
    tmp_path: Path, capfd: Capture, arguments: list[str], parts: list[str]
) -> None:
    photos = make_pictures(tmp_path / "photos")
    error = fails(capfd, photos, *arguments, backbone="image_cnn")
    assert all(part in error for part in parts), error


def test_the_wrong_kind_of_backbone_for_the_data_is_said(
    reviews: Path, tmp_path: Path, capfd: Capture
) -> None:
    assert "holds texts, but 'image_cnn' takes pictures" in fails(capfd, reviews, backbone="image_cnn")
    error = fails(capfd, make_pictures(tmp_path / "photos"))
    assert "no texts in 3 folders" in error
    assert "00.png" in error


def test_a_folder_that_is_no_backbone_is_said(reviews: Path, tmp_path: Path, capfd: Capture) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in fails(capfd, reviews, backbone=str(empty))
    (empty / "config.json").write_text('{"model_type": "gpt9"}')
    assert "gpt9" in fails(capfd, reviews, backbone=str(empty))
    (empty / "config.json").write_text("{")
    assert "config.json" in fails(capfd, reviews, backbone=str(empty))
    assert "nowhere" in fails(capfd, reviews, backbone=str(tmp_path / "nowhere"))
    assert "Did you mean 'minilm_l6'?" in fails(capfd, reviews, backbone="minilm_6")
