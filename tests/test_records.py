"""Records (TFRecord) as a source: what is read of them, and the same examples, epochs, runs as from files."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tlkit.config import Columns, DataConfig, Split, load_config
from tlkit.data import Dataset, check, load, longest_side, make_pipeline, modality_of
from tlkit.data.elsewhere import brought_here
from tlkit.data.record_files import compression_of, find_record_files
from tlkit.data.record_scan import scan_records
from tlkit.data.record_sources import read_records, read_text_records
from tlkit.data.record_writer import serialize, write_records
from tlkit.data.records import Records
from tlkit.data.sources import read_rows
from tlkit.data.text_sources import read_text_rows
from tlkit.errors import DataCheckError, DataError
from tlkit.preprocessing import ImagePreprocessing
from tlkit.workflows.export import _pictures
from tlkit.workflows.rank_examples import draw_examples, write_pictures
from tlkit.zoo.datasets import stored_datasets

from conftest import make_pictures
from record_files import examples_of, small_preprocessing, write_file, write_three_files

SIZE = 16
PNG = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8)).numpy()


@pytest.fixture(autouse=True)
def _seeded_keras() -> None:
    """Nothing here draws from Keras, and seeding it makes TensorFlow build the decoder again in each test."""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path.with_name(f"{tmp_path.name}-home")))


@pytest.fixture(scope="module")
def preprocessing() -> ImagePreprocessing:
    return small_preprocessing(SIZE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def records(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, in three files."""
    return write_three_files(tmp_path_factory.mktemp("records") / "photos", photos)


def load_pictures(source: Any, preprocessing: ImagePreprocessing, **options: Any) -> Dataset:
    return load(DataConfig(source=str(source), **options), "classify", seed=3, preprocessing=preprocessing)


def records_of(place: Path) -> Records:
    return scan_records(find_record_files(place).files, ("image",), ()).records


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading at any place


def test_a_record_is_read_wherever_it_lies(tmp_path: Path) -> None:
    contents = [bytes([number]) * (1 + 977 * number % 5000) for number in range(40)]
    for number in range(4):
        own = contents[10 * number : 10 * number + 10]
        write_file(tmp_path / f"{number}.tfrecord", [{"a": [1, 2], "image": raw, "z": "end"} for raw in own])
    records = records_of(tmp_path)
    rows = np.random.default_rng(0).permutation(40)
    read = tf.function(records.reader(), input_signature=[tf.TensorSpec((None,), tf.int64)])
    assert read(tf.constant(rows)).numpy().tolist() == [contents[row] for row in rows]
    assert read(tf.zeros((0,), tf.int64)).shape == (0,)
    chosen = records[rows][5:8]
    assert [chosen.read(number) for number in range(3)] == [contents[row] for row in rows[5:8]]
    backwards = chosen.reader()(tf.constant([2, 0], tf.int64)).numpy().tolist()
    assert backwards == [contents[rows[7]], contents[rows[5]]]


def test_a_file_that_changes_under_the_run_is_noticed(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.tfrecord", [{"image": bytes([n]) * 50} for n in range(4)])
    records, raw = records_of(tmp_path), bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    with pytest.raises(tf.errors.DataLossError):
        records.reader()(tf.constant([3], tf.int64))
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(tf.errors.OpError):
        records.reader()(tf.constant([3], tf.int64))
    with pytest.raises(OSError, match="has changed"):
        records.read(3)


# The same as from files


def test_records_are_the_examples_that_the_files_they_were_made_of_are(
    photos: Path, records: Path, preprocessing: ImagePreprocessing
) -> None:
    expected, found = load_pictures(photos, preprocessing), load_pictures(records, preprocessing)
    columns = ["id", "label", "split", "hash", "flags"]
    pd.testing.assert_frame_equal(found.manifest.table[columns], expected.manifest.table[columns])
    assert found.manifest.table["path"][16] == "all-00001-of-00003.tfrecord, record 5"
    assert (found.name, found.manifest.classes) == (expected.name, expected.manifest.classes)
    for name, examples in expected.splits.items():
        np.testing.assert_array_equal(np.asarray(found.splits[name].samples), np.asarray(examples.samples))


def test_an_epoch_that_reads_records_has_the_batches_of_one_that_reads_files(
    photos: Path, records: Path, preprocessing: ImagePreprocessing
) -> None:
    batches = []
    for source in (photos, records):
        train = load_pictures(source, preprocessing, memory=0.0, disk=0.0).splits["train"]
        assert train.samples is None
        train = train.take(np.arange(len(train))[::-1])
        pipeline = make_pipeline(train, preprocessing, global_batch_size=5, training=True, seed=1, epochs=2)
        batches.append(list(pipeline.as_numpy_iterator()))
    for one, other in zip(*batches, strict=True):
        for values, others in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, others)


def test_whatever_looks_at_pictures_looks_at_records(
    photos: Path, records: Path, tmp_path: Path, preprocessing: ImagePreprocessing
) -> None:
    spec = DataConfig(source=str(records))
    assert modality_of(None, spec) == "image"
    assert longest_side(spec) == longest_side(DataConfig(source=str(photos))) == 40
    report = check(spec)
    assert (report.usable, report.sizes["width"]["max"], report.problems) == (36, 40.0, ())
    config = load_config({"data": {"source": str(records)}}).config
    drawn = draw_examples(config, 20)
    paths = write_pictures(drawn.inputs, tmp_path / "drawn")
    expected = draw_examples(load_config({"data": {"source": str(photos)}}).config, 20)
    assert [Path(path).read_bytes() for path in paths] == [
        Path(path).read_bytes() for path in expected.inputs
    ]
    held_out = load_pictures(records, preprocessing).splits["test"]
    shown = _pictures(None, {"test": SimpleNamespace(examples=held_out)})  # type: ignore[arg-type, dict-item]
    assert shown == [held_out.records.read(number) for number in range(len(held_out))]  # type: ignore[union-attr]


# Files and splits


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.tfrecord", "b.tfrecords", "c.tfrec"], {"": 3}),
        (["train.tfrecord", "val.tfrecord"], {"train": 1, "validation": 1}),
        (["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"],
         {"train": 2, "validation": 1}),
        (["x-train.tfrecord-0-of-2", "x-train.tfrecord-1-of-2", "x-test.tfrecord-0-of-1"],
         {"train": 2, "test": 1}),
        (["train_01.tfrecord", "train_02.tfrecord", "test_01.tfrecord", "other.tfrecord"],
         {"train": 2, "test": 1}),
        (["train.tfrecord.gz", "notes.txt", "train.tfrecord.idx"], {"train": 1}),
        (["cifar10.tfrecord"], {"": 1}),
    ],
)  # fmt: skip
def test_splits_are_told_by_the_names_of_the_files(
    names: list[str], expected: dict[str, int], tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    found = find_record_files(tmp_path)
    assert {split: len(files) for split, files in found.splits.items()} == expected
    assert [path.name for path in found.ignored] == [name for name in names if name.startswith("other")]


def test_splits_of_files_are_kept(photos: Path, tmp_path: Path, preprocessing: ImagePreprocessing) -> None:
    examples = examples_of(photos)
    write_file(tmp_path / "test.tfrecord", examples[::4])
    write_file(tmp_path / "train-0.tfrecord", examples[1::4])
    write_file(tmp_path / "train-1.tfrecord", examples[2::4] + examples[3::4])
    table = load_pictures(tmp_path, preprocessing).manifest.table
    is_test = table["path"].str.startswith("test")
    assert set(table["split"][is_test]) == {"test"}
    assert set(table["split"][~is_test]) == {"train", "validation"}
    rows = read_records(tmp_path / "train-*.tfrecord", DataConfig())
    assert rows.splits is None  # one split that was asked for by name is all there is
    assert len(rows) == 27
    assert len(read_rows(str(tmp_path / "test.tfrecord"), DataConfig())) == 9


def test_two_sets_of_split_files_are_refused(tmp_path: Path) -> None:
    for name in ("a-train.tfrecord", "b-train.tfrecord"):
        (tmp_path / name).touch()
    assert "2 sets of split files" in error_of(lambda: find_record_files(tmp_path))


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_compressed_records_are_unpacked_once(
    compression: str, photos: Path, tmp_path: Path, preprocessing: ImagePreprocessing
) -> None:
    folder = tmp_path / "packed"
    write_file(folder / "train.tfrecord.gz", examples_of(photos), compression)
    write_file(folder / "test.tfrecord", examples_of(photos)[::5])
    assert compression_of(folder / "train.tfrecord.gz") == compression
    assert compression_of(folder / "test.tfrecord") == ""
    found = load_pictures(folder, preprocessing)
    assert {name: len(examples) for name, examples in found.splits.items()}["test"] == 8
    assert found.name == "packed"
    first = brought_here(str(folder), DataConfig())
    assert brought_here(str(folder), DataConfig()) == first != str(folder)
    (stored,) = stored_datasets()
    assert stored.about["source"] == str(folder)
    assert stored.in_use
    assert len(read_rows(str(folder / "train.tfrecord.gz"), DataConfig())) == 36


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_a_compressed_file_that_is_damaged_or_cut_off_is_named_and_nothing_of_it_stays(
    compression: str, tmp_path: Path
) -> None:
    examples = [{"image": bytes(number), "label": "x"} for number in range(200)]
    path = write_file(tmp_path / "a.tfrecord.gz", examples, compression)
    raw = path.read_bytes()
    for wrong in (raw[:-1], raw[:-9], raw[: len(raw) // 2], raw[:-6] + bytes(6)):
        path.write_bytes(wrong)
        assert "a.tfrecord.gz is damaged or cut off (" in error_of(
            lambda: brought_here(str(path), DataConfig())
        )
    assert stored_datasets() == []
    path.write_bytes(raw)
    assert len(read_rows(str(path), DataConfig(columns=Columns(path="image")))) == 200
    if compression == "GZIP":  # as `cat` joins files
        path.write_bytes(raw + raw)
        assert len(read_rows(str(path), DataConfig(columns=Columns(path="image")))) == 400


# What is wrong


def test_a_damaged_file_is_named_with_the_record(tmp_path: Path) -> None:
    examples = [{"image": PNG, "label": "x"}] * 60
    path = write_file(tmp_path / "a.tfrecord", examples)
    raw = path.read_bytes()
    path.write_bytes(raw[:-7])
    assert "record 60 is damaged or cut off" in error_of(lambda: read_records(path, DataConfig()))
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 1
    path.write_bytes(flipped)
    assert "is damaged or cut off" in error_of(lambda: read_records(path, DataConfig()))
    path.write_bytes((2**60).to_bytes(8, "little") + raw[8:])
    assert "is no file of records" in error_of(lambda: read_records(path, DataConfig()))
    path.write_bytes(b"something else altogether")
    assert "is no file of records" in error_of(lambda: read_records(path, DataConfig()))
    path.write_bytes(b"")
    assert "holds no record" in error_of(lambda: read_records(path, DataConfig()))
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff\xff")
    assert "record 1 is no tf.train.Example" in error_of(lambda: read_records(path, DataConfig()))


def test_a_record_without_a_picture_is_listed_and_left_out(
    photos: Path, tmp_path: Path, preprocessing: ImagePreprocessing
) -> None:
    examples = examples_of(photos)
    examples[3] = {"label": "blue"}
    examples[20]["image"] = b"no picture"
    path = write_file(tmp_path / "a.tfrecord", examples)
    dataset = load_pictures(path, preprocessing, max_bad=0.1)
    bad = dataset.manifest.table[dataset.manifest.table["flags"] == "unreadable"]
    assert bad["path"].tolist() == ["a.tfrecord, record 4", "a.tfrecord, record 21"]
    problems = dict(zip(dataset.report["path"], dataset.report["problem"], strict=True))
    assert problems["a.tfrecord, record 4"] == "has no feature 'image'"


# Features


def one_of(tmp_path: Path, **features: Any) -> Path:
    return write_file(tmp_path / "a.tfrecord", [features] * 3)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"image/encoded": PNG, "image/class/label": 3}, ("image/encoded", [3, 3, 3])),
        ({"image": PNG, "label": "x", "id": "7"}, ("image", ["x"] * 3)),
        ({"what": PNG, "label": b"x"}, ("what", ["x"] * 3)),
        ({"image": PNG, "thumb": PNG, "label": 1}, ("image", [1] * 3)),
        ({"image": PNG, "label": [1, 2]}, ("image", ["1|2"] * 3)),
        ({"image": b"none", "label": 0}, ("image", [0] * 3)),
    ],
)
def test_features_are_found_by_the_usual_names_and_by_what_is_in_them(
    features: dict[str, Any], expected: tuple[str, list[Any]], tmp_path: Path
) -> None:
    rows = read_records(one_of(tmp_path, **features), DataConfig())
    assert rows.records is not None
    assert (*rows.records.features, rows.labels.iloc[:, 0].tolist()) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 1, 1], [1, 0, 0]], {"label.0": [0, 1], "label.1": [1, 0], "label.2": [1, 0]}),
        ([[0, 1], [2, 0]], {"label": ["0|1", "2|0"]}),
        ([[1, 1], [1]], {"label": ["1|1", 1]}),
        ([[0.0, 1.0], [1.0, 1.0]], {"label.0": [0.0, 1.0], "label.1": [1.0, 1.0]}),
    ],
)
def test_zeros_and_ones_for_all_classes_are_told_from_numbers_of_classes(
    labels: list[list[float]], expected: dict[str, list[Any]], tmp_path: Path
) -> None:
    path = write_file(tmp_path / "a.tfrecord", [{"image": PNG, "label": label} for label in labels])
    assert read_records(path, DataConfig()).labels.to_dict("list") == expected


def test_features_are_those_that_the_config_names(tmp_path: Path) -> None:
    features = {"image": PNG, "thumb": PNG, "label": 1, "kind": "k", "far": [0.5, 1.5], "who": 7, "w": 2.0}
    path = one_of(tmp_path, **features)
    columns = Columns(path="thumb", label=("kind", "far"), weight="w")
    rows = read_records(path, DataConfig(columns=columns, split=Split(group_by="who")))
    assert rows.records is not None
    assert rows.records.features == ("thumb",)
    assert rows.labels.iloc[0].to_dict() == {"kind": "k", "far.0": 0.5, "far.1": 1.5}
    assert rows.weights is not None
    assert rows.weights.tolist() == [2.0] * 3
    assert rows.extras["who"].tolist() == [7] * 3


def test_a_missing_feature_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    path = one_of(tmp_path, a=PNG, b=PNG, number=1.5)
    assert "several features may be the picture (a, b)" in error_of(lambda: read_records(path, DataConfig()))
    spec = DataConfig(columns=Columns(path="a"))
    message = error_of(lambda: read_records(path, spec))
    assert (
        "no feature 'label' (data.columns.label). Its features: a (bytes), b (bytes), number (float)."
        in message
    )
    spec = DataConfig(columns=Columns(path="number"))
    assert "should hold bytes, received float" in error_of(lambda: read_records(path, spec))
    empty = one_of(tmp_path / "none", label=1)
    assert "there is no picture" in error_of(lambda: read_records(empty, DataConfig()))


def test_numbers_of_classes_become_the_names_that_tfds_writes_beside(
    photos: Path, tmp_path: Path, preprocessing: ImagePreprocessing
) -> None:
    folder, names = tmp_path / "small_photos" / "1.0.0", ["blue", "green", "red"]
    examples = [{**one, "label": names.index(one["label"])} for one in examples_of(photos)]
    write_file(folder / "small_photos-train.tfrecord-00000-of-00001", examples)
    (folder / "label.labels.txt").write_text("\n".join(names) + "\n")
    dataset = load_pictures(folder, preprocessing)
    assert dataset.manifest.classes == ("blue", "green", "red")
    assert dataset.name == "small-photos"
    write_file(
        folder / "small_photos-train.tfrecord-00000-of-00001", [{**examples[0], "label": -1}, *examples]
    )
    with pytest.raises(DataCheckError, match=r"1 of 37 labels are missing .*-00000-of-00001, record 1\."):
        load_pictures(folder, preprocessing)


# Texts


def test_texts_in_records_are_read_like_those_of_a_table(tmp_path: Path) -> None:
    texts = [{"text": f"größer {number}", "label": number % 2} for number in range(4)]
    path = write_file(tmp_path / "texts.tfrecord", texts)
    spec = DataConfig(source=str(path))
    assert modality_of(None, spec) == "text"
    rows = read_text_rows(str(path), spec, "classify")
    assert [rows.read(row).decode() for row in range(4)] == [one["text"] for one in texts]
    assert rows.labels["label"].tolist() == [0, 1, 0, 1]
    assert rows.describe(2) == "texts.tfrecord, record 3"
    report = check(spec)
    assert (report.modality, report.usable) == ("text", 4)


def test_words_are_held_by_nobody_but_who_reads_them(tmp_path: Path) -> None:
    path = write_file(tmp_path / "words.tfrecord", [{"tokens": ["a", "b"], "label": [0, 0]}])
    scan = weakref.ref(scan_records([path], (), ("tokens",)))
    gc.collect()
    assert scan() is None
    assert scan_records([path], ("text",), ()) is scan_records([path], ("text",), ())  # where they lie


def test_pairs_and_tokens_in_records(tmp_path: Path) -> None:
    pairs = [{"text": "a b", "text_b": "c", "score": 0.5}, {"text": "d", "text_b": "e", "score": 1.0}]
    path = write_file(tmp_path / "train.tfrecord", pairs)
    write_file(tmp_path / "test.tfrecord", pairs[:1])
    spec = DataConfig(columns=Columns(label="score"))
    rows = read_text_records(tmp_path, spec, "embed")
    assert rows.records is not None
    assert rows.texts is None
    assert sorted(map(rows.records.parts, range(3))) == [(b"a b", b"c"), (b"a b", b"c"), (b"d", b"e")]
    assert rows.splits is not None
    assert sorted(rows.splits.tolist()) == ["test", "train", "train"]
    assert read_text_records(path, DataConfig(), "embed").labels.shape == (2, 0)
    words = [{"tokens": ["New York", "is"], "ner": [1, 0]}, {"tokens": "big", "ner": 0}]
    path = write_file(tmp_path / "words" / "a.tfrecord", words)
    (path.parent / "ner.labels.txt").write_text("O\nB-place\n")
    rows = read_text_records(path, DataConfig(columns=Columns(label="ner")), "tokens")
    assert rows.texts == [["New York", "is"], ["big"]]
    assert rows.labels["ner"].tolist() == [["B-place", "O"], ["O"]]
    message = error_of(lambda: read_text_records(path, DataConfig(), "classify"))
    assert "no feature 'text' (data.columns.text). Its features: ner (int64), tokens (bytes)." in message


# Writing


def test_what_is_written_can_be_read_and_what_has_no_place_is_left_out(tmp_path: Path) -> None:
    values = {"a": "ä", "b": b"\xff", "n": True, "f": np.float32(0.5), "many": [1, 2], "deep": {"er": 3}}
    example = tf.train.Example.FromString(serialize({**values, "none": None, "object": object()}))
    features = example.features.feature
    assert sorted(features) == ["a", "b", "deep/er", "f", "many", "n"]
    assert features["a"].bytes_list.value[0].decode() == "ä"
    assert list(features["many"].int64_list.value) == [1, 2]
    with pytest.raises(DataError, match="holds no examples"):
        write_records([], tmp_path, "train")
