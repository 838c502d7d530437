"""From every kind of source of texts to the same rows."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tlkit.config import Columns, DataConfig
from tlkit.data.text_sources import modality_of, read_text_rows
from tlkit.errors import DataError, StorageError

TEXTS = ["Gut, besser.", 'says "no"', "two\nlines", "naïve 🙂", "nul\0in it", "a\u2028b"]
LABELS = ["a", "b", "a", "b", "NA", "007"]


def error_of(source, task="classify", kind=DataError, **columns) -> str:
    with pytest.raises(kind) as caught:
        read_text_rows(source, DataConfig(columns=Columns(**columns)), task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


# Tables


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_a_table_gives_the_same_rows_in_every_format(tmp_path, ending):
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    path = tmp_path / f"reviews.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    else:
        table = frame.to_csv(index=False, sep="\t" if ending == "tsv" else ",").encode("utf-8-sig")
        path.write_bytes(gzip.compress(table) if ending.endswith("gz") else table)
    rows = read_text_rows(str(path), DataConfig(), "classify")
    assert rows.texts == TEXTS
    assert rows.labels["label"].tolist() == LABELS
    assert rows.name == "reviews"
    # The third text is on two lines, so what follows it is one line further down.
    assert rows.describe(3) == ("row 4" if ending == "parquet" else "line 6")
    assert modality_of(str(path), DataConfig()) == "text"


@pytest.mark.parametrize(
    "names", [("train.csv", "dev.csv", "test.csv"), ("en_train.csv", "en_dev.csv", "en_test.csv")]
)
def test_split_tables_may_share_a_prefix(tmp_path, names):
    for number, name in enumerate(names):
        write(tmp_path / name, f"text,label\none {number},a\ntwo {number},b\n")
    write(tmp_path / "README.md", "hello")
    rows = read_text_rows(str(tmp_path), DataConfig(), "classify")
    assert dict(zip(rows.texts, rows.splits, strict=True)) == {
        f"{word} {number}": split
        for number, split in enumerate(("train", "validation", "test"))
        for word in ("one", "two")
    }
    assert rows.describe(0) == f"{names[1]}, line 2"


def test_sets_of_split_tables_must_be_told_apart(tmp_path):
    for name in ("en_train", "en_test", "de_train", "de_test"):
        write(tmp_path / f"{name}.csv", "text,label\nx,a\n")
    assert "2 sets of split files (de_train.csv, en_train.csv)" in error_of(str(tmp_path))
    write(tmp_path / "train.csv", "text,label\nx,a\n")
    assert len(read_text_rows(str(tmp_path), DataConfig(), "classify")) == 1
    write(tmp_path / "training.csv", "text,label\nx,a\n")
    assert "both mean the train split" in error_of(str(tmp_path))


def test_pairs_and_columns_of_other_names(tmp_path):
    path = write(tmp_path / "pairs.csv", "first,second,score\na cat,a dog,2.5\nx,,1\n")
    columns = {"text": "first", "text_b": "second", "label": "score"}
    rows = read_text_rows(path, DataConfig(columns=Columns(**columns)), "pair")
    assert rows.texts == [("a cat", "a dog"), ("x", "")]
    assert modality_of(path, DataConfig(columns=Columns(**columns))) == "text"
    unscored = read_text_rows(path, DataConfig(columns=Columns(text="first", text_b="second")), "embed")
    assert unscored.labels.shape == (2, 0)
    assert len(unscored) == 2
    assert "both 'first'" in error_of(path, "pair", text="first", text_b="first", label="score")


@pytest.mark.parametrize(
    "cells",
    [
        ("EU rejects", "B-ORG O"),
        ('["EU", "rejects"]', '["B-ORG", "O"]'),
        ("['EU', 'rejects']", "['B-ORG', 'O']"),
        ("['EU' 'rejects']", "['B-ORG' 'O']"),
        (["EU", "rejects"], np.array(["B-ORG", "O"])),
    ],
)
def test_lists_of_words_in_every_spelling(cells):
    frame = pd.DataFrame({"tokens": [cells[0]], "label": [cells[1]]})
    rows = read_text_rows(frame, DataConfig(), "tokens")
    assert rows.texts == [["EU", "rejects"]]
    assert rows.labels["label"].tolist() == [["B-ORG", "O"]]


def test_words_in_brackets_are_words():
    frame = pd.DataFrame({"tokens": ["[ laughs ] yes"], "label": ["O O O O"]})
    assert read_text_rows(frame, DataConfig(), "tokens").texts == [["[", "laughs", "]", "yes"]]


# CoNLL


def test_conll_in_its_dialects(tmp_path):
    four = "-DOCSTART- -X- -X- O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n \nPeter NNP I-NP I-PER\n"
    rows = read_text_rows(write(tmp_path / "four.conll", four), DataConfig(), "tokens")
    assert rows.texts == [["EU", "rejects"], ["Peter"]]
    assert rows.labels["label"].tolist() == [["I-ORG", "O"], ["I-PER"]]
    assert [rows.describe(row) for row in range(2)] == ["line 3", "line 6"]
    windows = "a\u2028b\tO\r\nNew York\tB-LOC\r\n\r\n\r\nlast\tO"
    rows = read_text_rows(write(tmp_path / "two.bio", windows), DataConfig(), "tokens")
    assert rows.texts == [["a\u2028b", "New York"], ["last"]]
    assert modality_of(str(tmp_path / "two.bio"), DataConfig()) == "text"


def test_comments_are_no_words(tmp_path):
    content = "# sent_id = 1\n#\tO\na\tB-X\n\n# text = b\nb\tO\n"
    rows = read_text_rows(write(tmp_path / "x.conll", content), DataConfig(), "tokens")
    assert rows.texts == [["#", "a"], ["b"]]
    spaces = read_text_rows(write(tmp_path / "y.conll", "# O\na B-X\n"), DataConfig(), "tokens")
    assert spaces.texts == [["#", "a"]]


def test_a_word_without_a_tag_breaks_its_sentence_alone(tmp_path):
    rows = read_text_rows(write(tmp_path / "x.iob", "a\tO\nb\n\nc\tO\n"), DataConfig(), "tokens")
    assert len(rows) == 2
    assert rows.broken == {0: "line 2 has a word without a tag, or a tag without a word"}


def test_split_conll_files_are_for_tokens_and_tables_beside_them_for_the_rest(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}_slots.bio", f"{split}\tO\n")
        write(tmp_path / f"{split}.csv", f"text,label\n{split},a\n")
    tagged = read_text_rows(str(tmp_path), DataConfig(), "tokens")
    assert tagged.texts == [["test"], ["train"]]
    assert tagged.splits.tolist() == ["test", "train"]
    assert read_text_rows(str(tmp_path), DataConfig(), "classify").texts == ["test", "train"]


# Folders, samples, Python


def test_class_folders_of_text_files(tmp_path):
    for split in ("train", "test"):
        for label in ("good", "bad"):
            write(tmp_path / split / label / "1.txt", f"{split} {label}")
            write(tmp_path / split / label / "notes.json", "{}")
    rows = read_text_rows(str(tmp_path), DataConfig(), "classify")
    assert rows.labels["label"].tolist() == ["bad", "good"] * 2
    assert rows.splits.tolist() == ["test"] * 2 + ["train"] * 2
    assert {note.problem for note in rows.notes} == {"is not a text by its name"}
    assert modality_of(str(tmp_path / "train"), DataConfig()) == "text"


def test_lists_arrays_and_datasets_give_the_same_rows():
    labels = [0, 1, 0, 1, 0, 1]
    dataset = tf.data.Dataset.from_tensor_slices((TEXTS, labels))
    sources = [(TEXTS, labels), (np.array(TEXTS, dtype=object), np.array(labels)), dataset, dataset.batch(4)]
    for source in (*sources, (pd.Series(TEXTS), pd.Series(labels))):
        rows = read_text_rows(source, DataConfig(), "classify")
        assert rows.texts == TEXTS
        assert rows.labels["label"].tolist() == labels
        assert modality_of(source, DataConfig()) == "text"


def test_pairs_and_words_in_python():
    pairs = [("a", "b"), ("c", "d"), ("e", "f")]
    first, second = zip(*pairs, strict=True)
    dataset = tf.data.Dataset.from_tensor_slices(((list(first), list(second)), [1.0, 2.0, 3.5]))
    for source in ((pairs, [1.0, 2.0, 3.5]), (np.array(pairs), [1.0, 2.0, 3.5]), dataset, dataset.batch(2)):
        rows = read_text_rows(source, DataConfig(), "pair")
        assert rows.texts == pairs
        assert modality_of(source, DataConfig()) == "text"
    assert read_text_rows((pairs, None), DataConfig(), "embed").labels.shape == (3, 0)
    words, tags = [["EU", "rejects"], ["Peter"]], [["B-ORG", "O"], ["B-PER"]]
    ragged = tf.data.Dataset.from_tensor_slices((tf.ragged.constant(words), tf.ragged.constant(tags)))
    for source in ((words, tags), ragged, ragged.batch(2)):
        rows = read_text_rows(source, DataConfig(), "tokens")
        assert rows.texts == words
        assert rows.labels["label"].tolist() == tags


@pytest.mark.parametrize(
    "source",
    [
        "elpv",
        "nowhere",
        (["a.png", "photos/b.jpg"], [0, 1]),
        (np.zeros((2, 8, 8, 3)), [0, 1]),
        pd.DataFrame({"path": ["a.png"], "text": ["title"], "label": [1]}),
        tf.data.Dataset.from_tensors((np.zeros((8, 8, 3)), 1)),
    ],
)
def test_pictures_are_no_texts(source):
    assert modality_of(source, DataConfig()) == "image"


# Bad input


def test_a_missing_column_is_named_with_the_nearest(tmp_path):
    path = write(tmp_path / "x.csv", "txt,label\nhello,a\n")
    message = error_of(path)
    assert "no column 'text' (data.columns.text). Did you mean 'txt'?" in message
    assert "txt, label" in message
    assert "no column 'text_b'" in error_of(path, "pair", text="txt")
    assert "no column 'tokens'" in error_of(path, "tokens")
    assert "no column 'score'" in error_of(
        write(tmp_path / "y.csv", "text,text_b\na,b\n"), "embed", label="score"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b'text,label\nfine,a\n"never closed,b\nlast,a\n',
            ["quote on line 3 is never closed", "never closed,b"],
        ),
        (b'text,label\n"a\nb",x\n"swallowed,b\n"next",a\n', ["lines 4 to 5", "swallowed,b"]),
        (b'text,label\n"said "no"",a\n', ["line 2", "written twice"]),
        (b"text,label\nfine,a\nwell, no,b\n", ["line 3 has 3 cells, the header has 2"]),
        ("text,label\nfine,a\ncafé,b\n".encode("latin-1"), ["line 3 is not UTF-8", "0xe9"]),
        ("text,label\nfine,a\n".encode("utf-16"), ["line 1 is not UTF-8", "UTF-16"]),
        (b"", ["is empty"]),
        (b"text,label\n", ["no rows"]),
        (b"text;label\nwell, no, fine;a\n", ["separated by ';'"]),
    ],
)
def test_a_broken_file_is_one_line_with_the_line_number(tmp_path, content, words):
    message = error_of(write(tmp_path / "x.csv", content))
    assert str(tmp_path) in message
    for word in words:
        assert word in message


def test_other_forms_are_refused_in_one_line(tmp_path):
    assert "inputs" not in error_of((["a"], [1, 2]))
    assert "one length" in error_of((["a"], [1, 2]))
    assert "pairs of texts" in error_of((["a"], [1]), "pair")
    assert "lists of words" in error_of((["a b"], [["O", "O"]]), "tokens")
    assert "no string, received int" in error_of(([1, 2], [1, 2]))
    assert "--task tokens" in error_of(write(tmp_path / "x.conll", "a\tO\n"), "classify")
    assert "holds no sentence" in error_of(write(tmp_path / "empty.conll", "\n\n"), "tokens")
    assert "needs a table" in error_of("bbc_news", "pair")
    assert "never ends" in error_of(tf.data.Dataset.from_tensors(("a", 1)).repeat())
    assert "must give (strings, labels)" in error_of(tf.data.Dataset.from_tensors((1.0, 1)))
    assert "Cannot read" in error_of(write(tmp_path / "x.csv.gz", b"\x1f\x8b"), kind=StorageError)


def test_very_long_cells_are_read(tmp_path):
    path = write(tmp_path / "x.csv", "text,label\n" + "long " * 100_000 + ",a\n")
    assert len(read_text_rows(path, DataConfig(), "classify").texts[0]) == 500_000


def test_json_lists_keep_odd_words():
    words = ["it's", "[", 'a "b"', "x, y"]
    frame = pd.DataFrame({"tokens": [json.dumps(words)], "label": ["O O O O"]})
    assert read_text_rows(frame, DataConfig(), "tokens").texts == [words]
