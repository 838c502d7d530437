"""Texts in records: what a run has of them is what it has of the same texts in a table, and none is held.

The figures of memory: pytest -m slow -s tests/test_records_texts.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from test_records_runs import check_shares, needs_proc

from tlkit.config import DataConfig, PreprocessingConfig, Split, Task, load_config
from tlkit.config.text import Normalization
from tlkit.config.text_augment import RandomSwap
from tlkit.data import (
    Dataset,
    changed_files_told,
    check,
    encode_texts,
    make_pipeline,
    modality_of,
    read_texts,
)
from tlkit.data.record_writer import write_records
from tlkit.errors import DataError
from tlkit.preprocessing import TextPreprocessing, learn_tokenizer, make_text_preprocessing
from tlkit.preprocessing.text_augment import make_text_augment
from tlkit.training.cache.features import Features
from tlkit.workflows.export import _texts
from tlkit.workflows.rank_examples import draw_examples
from tlkit.zoo.entry import TextInput, Tokenizer

from record_files import write_file

WORDS = "red green blue rose grass sky warm cold Größe naïve 1,5 don't".split()  # noqa: SIM905
NORMALIZATION = Normalization(lowercase=True, mask_numbers=True)
LABELS: dict[Task, tuple[Any, Any]] = {
    "classify": ("cold", "warm"), "multilabel": ("a|b", "b"), "regress": (0.5, 2), "pair": ("no", "yes"),
    "embed": (0.25, 1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded_keras() -> None:
    """Nothing here draws from Keras."""


def table_of(task: Task, count: int = 60) -> pd.DataFrame:
    """Texts of many lengths, some odd, and some that stand there twice."""
    rng = np.random.default_rng(5)
    texts = [
        "  ".join(rng.choice(WORDS, size)) + f"\t{number}"
        for number, size in enumerate(rng.integers(1, 40, count))
    ]
    texts[7], texts[9], texts[11] = texts[2], f" {texts[3]} ", "nul ￿ 😀 \u2028 end"
    frame = pd.DataFrame({"text": texts, "label": [LABELS[task][number % 2] for number in range(count)]})
    seconds = texts[::-1]
    seconds[7], seconds[9] = seconds[2], seconds[3]
    return frame.assign(text_b=seconds) if task in ("pair", "embed") else frame


def both(task: Task, folder: Path) -> tuple[Path, Path]:
    """The same texts as a table and as two files of records."""
    folder.mkdir(exist_ok=True)
    frame = table_of(task)
    frame.to_csv(folder / "texts.csv", index=False)
    rows = frame.to_dict("records")
    for number in range(2):
        write_file(folder / "texts" / f"{number}.tfrecord", rows[30 * number : 30 * number + 30])
    return folder / "texts.csv", folder / "texts"


def load_texts(source: Path, task: Task, **options: Any) -> tuple[Dataset, TextPreprocessing]:
    """As a run does it: a vocabulary of its own, lengths that fit, and of single texts augmentation."""
    texts = read_texts(DataConfig(source=str(source), **options), task, seed=3, normalization=NORMALIZATION)
    facts = Tokenizer(kind="words")
    preprocessing = make_text_preprocessing(
        TextInput(sequence_length=64, tokenizer=facts),
        PreprocessingConfig(normalize=NORMALIZATION),
        learn_tokenizer(facts, texts.training, 40),
        task,
        augmentation=make_text_augment([RandomSwap(share=0.2)]) if task == "classify" else None,
    )
    return encode_texts(texts, preprocessing, fit_length=True)


# The same as of a table


@pytest.mark.parametrize("task", ["classify", "multilabel", "pair", "embed"])
def test_records_give_the_examples_and_batches_that_the_same_texts_in_a_table_give(
    task: Task, tmp_path: Path
) -> None:
    (expected, wanted), (found, got) = (load_texts(source, task) for source in both(task, tmp_path))
    assert (got.sequence_length, got.buckets) == (wanted.sequence_length, wanted.buckets)
    assert got.tokenizer.vocabulary == wanted.tokenizer.vocabulary  # type: ignore[attr-defined]
    columns = ["id", "label", "split", "hash", "flags"]
    pd.testing.assert_frame_equal(found.manifest.table[columns], expected.manifest.table[columns])
    assert "duplicate" in " ".join(found.manifest.table["flags"])
    assert set(found.manifest.table["text"]) == {""}
    assert (found.objective, found.truncated) == (expected.objective, expected.truncated)
    for name, training in (("train", True), ("test", False)):
        assert found.splits[name].samples is None
        np.testing.assert_array_equal(found.splits[name].lengths, expected.splits[name].lengths)
        one, other = (
            make_pipeline(
                dataset.splits[name], preprocessing, global_batch_size=7, training=training, seed=1, epochs=2
            ).as_numpy_iterator()
            for dataset, preprocessing in ((expected, wanted), (found, got))
        )
        for values, others in zip(one, other, strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, values, others)


BOTH = """
import sys
import tlkit
from tlkit.results import write_json
out, *sources = sys.argv[1:]
for number, source in enumerate(sources):
    run = tlkit.finetune(
        config={"data": {"source": source}, "preprocessing": {"augment": "none"}}, backbone="text_cnn",
        batch_size=12, epochs=2, deterministic=True, export=False, out=f"{out}/{number}",
    )
write_json(f"{out}/again.json", tlkit.load(f"{out}/1").evaluate())
"""


def test_a_run_on_records_gives_what_a_run_on_a_table_gives_bit_by_bit(tmp_path: Path) -> None:
    table, records = both("classify", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", BOTH, str(tmp_path), str(table), str(records)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, other = (np.load(tmp_path / name / "outputs.npz") for name in "01")
    np.testing.assert_array_equal(one["ids"], other["ids"])
    np.testing.assert_array_equal(one["outputs"], other["outputs"])
    assert (tmp_path / "0" / "history.csv").read_text() == (tmp_path / "1" / "history.csv").read_text()
    measured = json.loads((tmp_path / "1" / "result.json").read_text())["metrics"]["test"]
    assert json.loads((tmp_path / "again.json").read_text())["accuracy"] == measured["accuracy"]


def test_whatever_looks_at_texts_looks_at_records(tmp_path: Path) -> None:
    table, records = both("classify", tmp_path)
    assert modality_of(None, DataConfig(source=str(records))) == "text"
    expected, found = (check(DataConfig(source=str(source))) for source in (table, records))
    assert (found.sizes, found.classes, found.usable) == (expected.sizes, expected.classes, 60)
    assert len(found.duplicates) == len(expected.duplicates) == 2
    one, other = (
        draw_examples(load_config({"data": {"source": str(source)}}).config, 25)
        for source in (table, records)
    )
    assert other.inputs == one.inputs
    assert len(other) == 25
    held_out = load_texts(records, "classify")[0].splits["test"]
    run = SimpleNamespace(config=SimpleNamespace(task="classify"))
    shown = _texts(run, {"test": SimpleNamespace(examples=held_out)})  # type: ignore[arg-type, dict-item]
    assert held_out.records is not None
    assert shown == [held_out.records.read(number) for number in range(len(held_out))]


def test_texts_that_are_cleaned_in_python_are_held(tmp_path: Path) -> None:
    def clean(texts: Any) -> list[str]:
        return [text.replace("red", "") for text in texts]

    one, other = (
        read_texts(DataConfig(source=str(source)), "pair", seed=3, clean=clean)
        for source in both("pair", tmp_path)
    )
    assert one.content.samples is not None
    np.testing.assert_array_equal(one.content.samples, other.content.samples)
    assert list(one.training) == list(other.training)


def test_a_record_without_one_text_is_listed_and_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"text {n}", "text_b": "b", "label": n % 2} for n in range(40)]
    del rows[3]["text_b"]
    rows[5]["text"], rows[6]["text"], rows[7]["text"] = ["two", "texts"], 5, " "
    rows[8]["text"] = b"caf\xe9 \xff\xfe"
    path = write_file(tmp_path / "a.tfrecord", rows)
    texts = read_texts(DataConfig(source=str(path), max_bad=0.2), "pair", seed=0)
    notes = {note.path: note.problem for note in texts.report if note.path}
    assert notes == {
        "a.tfrecord, record 4": "has no feature 'text_b'",
        "a.tfrecord, record 6": "has 2 values of bytes in 'text', not one of bytes",
        "a.tfrecord, record 7": "has 1 values of int64 in 'text', not one of bytes",
        "a.tfrecord, record 8": "is empty (first text)",
        "a.tfrecord, record 9": "has 3 characters that were lost in decoding (U+FFFD)",
    }


def test_stored_features_tell_normalisations_apart(tmp_path: Path) -> None:
    dataset, preprocessing = load_texts(both("classify", tmp_path)[1], "classify")
    hashes = dict(zip(dataset.manifest.table["id"], dataset.manifest.table["hash"], strict=True))
    train = dataset.splits["train"]

    def own_hashes(normalization: Normalization) -> list[str]:
        object.__setattr__(preprocessing, "normalization", normalization)
        features = Features(None, None, "float32", preprocessing, hashes)  # type: ignore[arg-type]
        return features._own_hashes(train)

    one, other = own_hashes(Normalization()), own_hashes(NORMALIZATION)
    assert len(set(one)) == len(train)
    assert not set(one) & set(other)


# Reading while training


def long_texts(count: int, size: int) -> list[dict[str, Any]]:
    """Texts of `size` words of 40 letters."""
    rng = np.random.default_rng(2)
    return [
        {"text": " ".join(rng.bytes(20).hex() for _ in range(size)), "label": float(row)}
        for row in range(count)
    ]


@needs_proc
@pytest.mark.parametrize("training", [True, False])
def test_a_worker_reads_the_texts_of_its_own_rows_and_no_others(training: bool, tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.tfrecord", long_texts(25, 1500))
    dataset, preprocessing = load_texts(path, "regress", split=Split(validation=0, test=0))
    examples = dataset.splits["train"]
    check_shares(examples, preprocessing, path, training, rel=0.03)


@pytest.mark.parametrize("task", ["classify", "pair"])
def test_a_text_that_changes_under_the_run_is_named(task: Task, tmp_path: Path) -> None:
    _, records = both(task, tmp_path)
    dataset, preprocessing = load_texts(records, task)
    train = dataset.splits["train"]

    def epoch() -> int:
        with changed_files_told(dataset):
            return sum(1 for _ in make_pipeline(train, preprocessing, global_batch_size=8, training=True))

    assert epoch()
    assert train.records is not None
    row = int(np.flatnonzero(train.records.file_of == 1)[0])
    text, *_ = train.records.parts(row)
    path = Path(train.records.files[1])
    rows = table_of(task).to_dict("records")[30:]
    changed = next(number for number, each in enumerate(rows) if each["text"].encode() == text)
    rows[changed]["text"] = rows[changed]["text"][
        ::-1
    ]  # as many bytes, so that all others stay where they are
    write_file(path, rows)
    with pytest.raises(DataError, match=rf"1 of the files .*: 1\.tfrecord, record {changed + 1} \(changed\)"):
        epoch()
    path.unlink()
    with pytest.raises(DataError, match=r"tfrecord, record \d+ \(No such file"):
        epoch()


# Memory

PEAK = """
import sys
from tlkit.config import DataConfig, PreprocessingConfig
from tlkit.data import encode_texts, make_pipeline, read_texts
from tlkit.preprocessing import learn_tokenizer, make_text_preprocessing
from tlkit.zoo.entry import TextInput, Tokenizer

texts = read_texts(DataConfig(source=sys.argv[1]), "classify", seed=0)
facts = Tokenizer(kind="words")
preprocessing = make_text_preprocessing(
    TextInput(sequence_length=64, tokenizer=facts), PreprocessingConfig(),
    learn_tokenizer(facts, texts.training, 1000), "classify",
)
dataset, preprocessing = encode_texts(texts, preprocessing, fit_length=True)
for _ in make_pipeline(dataset.splits["train"], preprocessing, global_batch_size=32, training=True):
    pass
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def peak_of(folder: Path, count: int, size: int) -> tuple[int, int]:
    """The most memory of a process that goes through `count` texts of `size` words, and their bytes."""
    folder.mkdir()
    bodies = [one["text"] for one in long_texts(50, size)]
    texts = (f"{number} {bodies[number % 50]}" for number in range(count))
    write_records(({"text": text, "label": n % 3} for n, text in enumerate(texts)), folder, "data")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024, sum(path.stat().st_size for path in folder.iterdir())


@needs_proc
@pytest.mark.slow
def test_memory_does_not_grow_with_the_texts_but_with_their_number(tmp_path: Path) -> None:
    few, many = peak_of(tmp_path / "few", 500, 1000), peak_of(tmp_path / "many", 7500, 1000)
    peaks, sizes = zip(few, many, strict=True)
    print(
        f"records of {[round(size / 1e6) for size in sizes]} MB; "
        f"peaks of memory {[round(peak / 1e6) for peak in peaks]} MB"
    )
    assert sizes[1] - sizes[0] > 250e6
    # What is left are rows, batches on their way, and what an allocator keeps.
    assert peaks[1] - peaks[0] < 0.2 * (sizes[1] - sizes[0])
    (least, _), (most, _) = peak_of(tmp_path / "tiny", 1000, 1), peak_of(tmp_path / "short", 51_000, 1)
    print(f"a row takes {(most - least) / 50_000:.0f} bytes")
    assert most - least < 50_000 * 2500
