"""Data sets of TFDS and of Hugging Face's `datasets` as sources."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tlkit.config import Columns, DataConfig
from tlkit.data import Dataset, load, modality_of
from tlkit.data.elsewhere import brought_here
from tlkit.data.sources import read_rows
from tlkit.data.text_sources import read_text_rows
from tlkit.errors import ConfigError, DataError, FetchError
from tlkit.zoo.datasets import stored_datasets

from conftest import make_pictures
from record_files import examples_of, small_preprocessing, write_file

NAMES = ["blue", "green", "red"]


@pytest.fixture(autouse=True)
def _seeded_keras() -> None:
    """Nothing here draws from Keras, and seeding it makes TensorFlow build the decoder again in each test."""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path.with_name(f"{tmp_path.name}-home")))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


def load_pictures(source: Any) -> Dataset:
    preprocessing = small_preprocessing(16)
    return load(DataConfig(), "classify", seed=0, preprocessing=preprocessing, source=source)


# TFDS


def as_tfds(folder: Path, photos: Path) -> None:
    """What TFDS does to prepare a data set, and leaves of it."""
    print("Downloading and preparing")
    examples = [{**one, "label": NAMES.index(one["label"])} for one in examples_of(photos)]
    write_file(folder / "photos-train.tfrecord-00000-of-00001", examples[::2])
    write_file(folder / "photos-test.tfrecord-00000-of-00001", examples[1::2])
    (folder / "label.labels.txt").write_text("\n".join(NAMES) + "\n")
    (folder / "dataset_info.json").write_text("{}")


def fake_tfds(
    folder: Path, photos: Path, written: str = "tfrecord", data_dir: str | None = None
) -> SimpleNamespace:
    def builder(name: str, file_format: str) -> SimpleNamespace:
        if name != "photos:1.0.0":
            raise ValueError(f"Dataset {name} not found.\nAvailable: photos")
        assert file_format == "tfrecord"
        info = SimpleNamespace(file_format=SimpleNamespace(value=written))
        prepare = partial(as_tfds, folder, photos)
        where = data_dir or str(folder)
        return SimpleNamespace(data_dir=where, info=info, download_and_prepare=prepare)

    return SimpleNamespace(builder=builder)


def test_a_data_set_of_tfds_is_read_where_tfds_keeps_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos" / "1.0.0"
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake_tfds(folder, photos))
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="TLKIT_OFFLINE forbids downloads"):
        load_pictures("tfds:photos:1.0.0")
    monkeypatch.delenv("TLKIT_OFFLINE")
    found = load_pictures("tfds:photos:1.0.0")
    assert capsys.readouterr().out == ""  # which is for results
    assert (found.name, found.manifest.classes) == ("photos", tuple(NAMES))
    assert len(found.splits["test"]) == 18
    assert stored_datasets() == []  # nothing is copied
    with pytest.raises(
        FetchError, match=r"tfds:other cannot be had: Dataset other not found. Available: photos"
    ):
        load_pictures("tfds:other")
    library = fake_tfds(folder, photos, written="array_record")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", library)
    with pytest.raises(ConfigError, match="was prepared as array_record"):
        load_pictures("tfds:photos:1.0.0")
    library = fake_tfds(folder, photos, data_dir="gs://bucket/tfds/photos/1.0.0")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", library)
    with pytest.raises(ConfigError, match=r"\(TFDS_DATA_DIR\) cannot be at gs://bucket/tfds"):
        load_pictures("tfds:photos:1.0.0")


TFDS = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from tlkit.config import DataConfig
from tlkit.data.sources import read_rows
from tlkit.errors import FetchError

class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"image": np.full((8, 8, 3), number, np.uint8), "label": number % 2}

rows = read_rows("tfds:tiny_photos", DataConfig())
assert rows.name == "tiny-photos", rows.name
assert sorted(set(rows.splits)) == ["test", "train"], rows.splits
assert sorted(set(rows.labels["label"])) == ["a", "b"], rows.labels
assert rows.records.read(0).startswith(b"\\x89PNG")
try:
    read_rows("tfds:no_such_data", DataConfig())
except FetchError as error:
    assert "tfds:no_such_data cannot be had" in str(error) and len(str(error).splitlines()) == 1, error
else:
    raise AssertionError("it was found")
"""


def test_the_library_of_tfds_writes_what_is_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", TFDS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_a_tf_dataset_of_features_by_name_is_read(photos: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    source = tf.data.Dataset.from_tensor_slices(
        {"image": pictures, "label": np.arange(12) % 2, "id": np.arange(12)}
    )
    assert modality_of(source, DataConfig()) == "image"
    rows = read_rows(source, DataConfig())
    assert rows.labels["label"].tolist() == [0, 1] * 6
    np.testing.assert_array_equal(np.stack(rows.pictures or ()), pictures)
    texts = tf.data.Dataset.from_tensor_slices({"text": ["a", "b"], "label": [0, 1]})
    assert modality_of(texts, DataConfig()) == "text"
    assert list(read_text_rows(texts, DataConfig(), "classify").texts or ()) == ["a", "b"]
    with pytest.raises(DataError, match=r"no feature 'kind': name it in data.columns. Its features: image, "):
        read_rows(source, DataConfig(columns=Columns(label="kind")))


# Hugging Face


@pytest.fixture(scope="module")
def datasets() -> Any:
    return pytest.importorskip("datasets", reason="needs the extra datasets")


@pytest.fixture(scope="module")
def splits(datasets: Any, photos: Path) -> Any:
    """A `DatasetDict` of the photos."""
    examples = examples_of(photos)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    parts = {"train": examples[::2], "test": examples[1::2], "unsupervised": examples[:1]}
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {
                    "img": [{"bytes": one["image"], "path": None} for one in own],
                    "label": [NAMES.index(one["label"]) for one in own],
                },
                features=features,
            )
            for name, own in parts.items()
        }
    )


def test_a_data_set_of_hugging_face_is_written_as_records_once(
    splits: Any, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert modality_of(splits, DataConfig()) == "image"
    found = load_pictures(splits)
    assert "not used: the splits unsupervised" in capsys.readouterr().err
    assert found.manifest.classes == tuple(NAMES)
    assert len(found.splits["test"]) == 18
    files = load_pictures(photos).manifest.table
    assert set(found.manifest.table["hash"]) == set(files["hash"])  # the same bytes, not encoded anew
    load_pictures(splits)
    assert len(stored_datasets()) == 1


def test_saved_and_named_data_sets_are_read(
    splits: Any, datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits.save_to_disk(str(tmp_path / "saved"))
    splits["train"].save_to_disk(str(tmp_path / "one"))
    found = load_pictures(str(tmp_path / "saved"))
    assert (found.name, len(found.splits["test"])) == ("saved", 18)
    assert len(load_pictures(str(tmp_path / "one")).manifest.table) == 18
    asked = []

    def load_dataset(address: str, **options: Any) -> Any:
        asked.append((address, options))
        if address == "nobody/nothing":
            raise FileNotFoundError("Couldn't find any data file")
        return splits

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = "datasets:owner/photos#name=small&revision=abc&splits=train,test"
    assert load_pictures(source).name == "photos"
    assert asked[0] == ("owner/photos", {"name": "small", "revision": "abc"})
    with pytest.raises(FetchError, match="datasets:nobody/nothing cannot be loaded: Couldn't find"):
        load_pictures("datasets:nobody/nothing")
    with pytest.raises(DataError, match="there is no split 'dev'. Its splits: train, test, unsupervised"):
        load_pictures("datasets:owner/photos#splits=dev")
    for wrong in ("datasets:", "datasets:a/b/c", "datasets:a#colour=red", "datasets:a#name="):
        with pytest.raises(ConfigError, match="is not of the form datasets:OWNER/NAME"):
            load_pictures(wrong)


def test_texts_and_words_of_hugging_face(datasets: Any) -> None:
    texts = datasets.Dataset.from_dict({"text": ["ä", "b", "c"], "label": [0, 1, -1]})
    texts = texts.cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    assert modality_of(texts, DataConfig()) == "text"
    rows = read_text_rows(texts, DataConfig(), "classify")
    assert [rows.read(row).decode() for row in range(3)] == ["ä", "b", "c"]
    assert rows.labels["label"].tolist() == ["no", "yes", None]
    assert rows.splits is None
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-x"])),
        }
    )
    words = datasets.Dataset.from_dict(
        {"tokens": [["a", "b"], ["c"]], "tags": [[0, 1], [1]]}, features=features
    )
    rows = read_text_rows(words, DataConfig(columns=Columns(label="tags")), "tokens")
    assert rows.texts == [["a", "b"], ["c"]]
    assert rows.labels["tags"].tolist() == [["O", "B-x"], ["B-x"]]


def test_files_in_a_local_folder_are_a_data_set_by_their_name(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "somebody" / "letters"
    folder.mkdir(parents=True)
    for split, letters in {"train": "abc", "test": "d"}.items():
        lines = [f"{letter} {letter},{number % 2}" for number, letter in enumerate(letters)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    source = "datasets:somebody/letters"
    assert modality_of(source, DataConfig()) == "text"
    rows = read_text_rows(source, DataConfig(), "classify")
    assert (rows.name, [rows.read(row) for row in range(4)]) == ("letters", [b"d d", b"a a", b"b b", b"c c"])
    assert rows.splits is not None
    assert rows.splits.tolist() == ["test", "train", "train", "train"]
    (folder / "letters.py").write_text("")
    with pytest.raises(FetchError, match="cannot be loaded: Dataset scripts are no longer supported"):
        brought_here("datasets:somebody/letters#name=default", DataConfig())


def test_no_download_of_hugging_face_where_it_is_forbidden(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(FetchError, match=r"\(TLKIT_OFFLINE forbids downloads\): .*OfflineModeIsEnabled"):
        brought_here("datasets:nobody/unheard-of", DataConfig())
    assert before == datasets.config.HF_HUB_OFFLINE


def test_a_data_set_is_asked_for_once_in_a_process(splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(address: str) -> Any:
        asked.append(address)
        return splits

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", load_dataset)
    assert modality_of("datasets:owner/asked-once", DataConfig()) == "image"
    assert len(load_pictures("datasets:owner/asked-once").splits["test"]) == 18
    assert asked == ["owner/asked-once"]


def test_what_needs_libraries_of_its_own_to_be_decoded_is_left_out(splits: Any, datasets: Any) -> None:
    photos = splits["train"]
    sounds = [{"bytes": b"RIFF", "path": None}] * len(photos)
    with_sounds = photos.add_column("sound", sounds).cast_column("sound", datasets.Audio())
    assert len(load_pictures(with_sounds).manifest.table) == len(photos)


def test_a_data_set_that_cannot_be_read_twice_is_refused(splits: Any) -> None:
    with pytest.raises(DataError, match="IterableDataset cannot be read as often as training needs"):
        brought_here(splits["train"].to_iterable_dataset(), DataConfig())
    with pytest.raises(DataError, match="there is no split 'train'"):
        brought_here(type(splits)({"a": splits["train"], "b": splits["test"]}), DataConfig())


@pytest.mark.parametrize(
    ("library", "source", "extra"),
    [("datasets", "datasets:owner/name", "datasets"), ("tensorflow_datasets", "tfds:mnist", "tfds")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    library: str, source: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"pip install 'tlkit\[{extra}\]'"):
        brought_here(source, DataConfig())
