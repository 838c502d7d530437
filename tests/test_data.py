"""From every kind of source to the same manifest and splits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tlkit.config import Columns, DataConfig, PreprocessingConfig, Split
from tlkit.data import check, load, resolve_sample_split
from tlkit.errors import DataCheckError, DataError, StorageError
from tlkit.preprocessing import make_preprocessing
from tlkit.zoo.entry import ImageInput

SIZE = 16


@pytest.fixture(autouse=True)
def _seeded_keras():
    """Nothing here draws from Keras, and seeding it makes TensorFlow build the decoder again in each test."""


@pytest.fixture
def preprocessing():
    return make_preprocessing(
        ImageInput(image_size=SIZE, min_image_size=8), PreprocessingConfig(image_size=SIZE)
    )


def picture(number: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(np.uint8)


def write_picture(path: Path, number: int, side: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(picture(number, side)).numpy())
    return path


def write_classes(folder: Path, counts: dict[str, int], start: int = 0) -> Path:
    for name, count in counts.items():
        for index in range(count):
            write_picture(folder / name / f"{index:03}.png", start)
            start += 1
    return folder


def split_of(dataset) -> dict[str, str]:
    table = dataset.manifest.table
    return dict(zip(table["path"], table["split"], strict=True))


def error_of(call, kind=DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Class folders


def test_class_folders_become_a_stratified_seeded_split(tmp_path, preprocessing):
    write_classes(tmp_path / "photos", {"Cat": 40, "dog": 20})
    spec = DataConfig(source=str(tmp_path / "photos"))
    dataset = load(spec, "classify", seed=3, preprocessing=preprocessing)
    table = dataset.manifest.table
    assert dataset.name == "photos"
    assert dataset.manifest.classes == ("Cat", "dog")
    assert pd.crosstab(table["split"], table["label"]).loc[
        ["train", "validation", "test"]
    ].values.tolist() == [
        [28, 14],
        [6, 3],
        [6, 3],
    ]
    train = dataset.splits["train"]
    assert train.samples.shape == (42, SIZE, SIZE, 3)
    assert train.samples.dtype == np.uint8
    assert train.targets.dtype == np.int32
    again = load(spec, "classify", seed=3, preprocessing=preprocessing)
    assert split_of(again) == split_of(dataset)
    other = load(spec, "classify", seed=4, preprocessing=preprocessing)
    assert split_of(other) != split_of(dataset)


def test_samples_belong_to_the_ids_beside_them(tmp_path, preprocessing):
    write_classes(tmp_path, {"a": 15, "b": 15})
    dataset = load(DataConfig(source=str(tmp_path)), "classify", seed=0, preprocessing=preprocessing)
    table = dataset.manifest.table.set_index("id")
    for name, examples in dataset.splits.items():
        for row, example in enumerate(examples.ids):
            raw = Path(examples.paths[row]).read_bytes()
            assert table.loc[example, "path"] == examples.paths[row]
            assert table.loc[example, "split"] == name
            assert dataset.manifest.classes[examples.targets[row]] == Path(examples.paths[row]).parent.name
            np.testing.assert_array_equal(
                examples.samples[row], preprocessing.decode(tf.constant(raw)).numpy()
            )


def test_split_does_not_depend_on_the_order_of_the_file_system(tmp_path, preprocessing, monkeypatch):
    write_classes(tmp_path, {"a": 10, "b": 10})
    spec = DataConfig(source=str(tmp_path))
    forwards = load(spec, "classify", seed=0, preprocessing=preprocessing)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listing(self), reverse=True))
    backwards = load(spec, "classify", seed=0, preprocessing=preprocessing)
    pd.testing.assert_frame_equal(forwards.manifest.table, backwards.manifest.table)


def test_pictures_at_any_depth_count_and_hidden_and_other_files_do_not(tmp_path, preprocessing):
    write_classes(tmp_path, {"a": 9, "b": 9})
    write_picture(tmp_path / "a" / "deep" / "er" / "x.png", 100)
    write_picture(tmp_path / "a" / ".hidden.png", 101)
    write_picture(tmp_path / ".hidden" / "x.png", 102)
    (tmp_path / "b" / "notes.txt").write_text("hello")
    (tmp_path / "README.md").write_text("hello")
    dataset = load(DataConfig(source=str(tmp_path)), "classify", seed=0, preprocessing=preprocessing)
    assert len(dataset.manifest.table) == 19
    assert [Path(path).name for path in dataset.report["path"]] == ["README.md", "notes.txt"]
    assert set(dataset.report["action"]) == {"ignored"}


def test_links_that_lead_in_circles_are_followed_once(tmp_path, preprocessing):
    write_classes(tmp_path, {"a": 9, "b": 9})
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    dataset = load(DataConfig(source=str(tmp_path)), "classify", seed=0, preprocessing=preprocessing)
    assert len(dataset.manifest.table) == 18


def test_split_folders_are_kept_and_validation_comes_out_of_train(tmp_path, preprocessing):
    write_classes(tmp_path / "train", {"a": 20, "b": 20})
    write_classes(tmp_path / "test", {"a": 3, "b": 4}, start=500)
    spec = DataConfig(source=str(tmp_path))
    dataset = load(spec, "classify", seed=0, preprocessing=preprocessing)
    assert {name: len(examples) for name, examples in dataset.splits.items()} == {
        "train": 34,
        "validation": 6,
        "test": 7,
    }
    write_classes(tmp_path / "val", {"a": 2, "b": 2}, start=900)
    dataset = load(spec, "classify", seed=0, preprocessing=preprocessing)
    assert [len(dataset.splits[name]) for name in ("train", "validation", "test")] == [40, 4, 7]
    table = dataset.manifest.table
    assert all(
        Path(path).parts[-3].startswith(split[:3])
        for path, split in zip(table["path"], table["split"], strict=True)
    )


def test_a_table_for_each_split_is_a_source(tmp_path, preprocessing):
    for number, split in enumerate(("train", "val", "test")):
        paths = [write_picture(tmp_path / "p" / f"{split}{k}.png", 100 * number + k) for k in range(6)]
        rows = pd.DataFrame({"path": [f"p/{path.name}" for path in paths], "label": list("ababab")})
        rows.to_csv(tmp_path / f"{split}.csv", index=False)
    dataset = load(DataConfig(source=str(tmp_path)), "classify", seed=0, preprocessing=preprocessing)
    assert {name: len(examples) for name, examples in dataset.splits.items()} == {
        "train": 6,
        "validation": 6,
        "test": 6,
    }
    table = dataset.manifest.table
    assert all(Path(p).name.startswith(s[:3]) for p, s in zip(table["path"], table["split"], strict=True))


def test_a_class_may_be_called_test(tmp_path, preprocessing):
    write_classes(tmp_path, {"exam": 9, "test": 9})
    dataset = load(DataConfig(source=str(tmp_path)), "classify", seed=0, preprocessing=preprocessing)
    assert dataset.manifest.classes == ("exam", "test")


def test_missing_test_folder_leaves_no_test_split(tmp_path, preprocessing):
    write_classes(tmp_path / "train", {"a": 10, "b": 10})
    write_classes(tmp_path / "dev", {"a": 2, "b": 2}, start=500)
    dataset = load(DataConfig(source=str(tmp_path)), "classify", seed=0, preprocessing=preprocessing)
    assert set(dataset.splits) == {"train", "validation"}


# Content


def test_bad_files_are_reported_flagged_and_left_out(tmp_path, preprocessing):
    write_classes(tmp_path, {"a": 40, "b": 40})
    good = (tmp_path / "a" / "000.png").read_bytes()
    (tmp_path / "a" / "000.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "a" / "001.png").write_bytes(b"")
    (tmp_path / "b" / "002.png").write_text("I am no picture")
    dataset = load(DataConfig(source=str(tmp_path)), "classify", seed=0, preprocessing=preprocessing)
    report = dataset.report
    assert [Path(path).name for path in report["path"]] == ["000.png", "001.png", "002.png"]
    assert "cut off" in report["problem"][0]
    assert "empty" in report["problem"][1]
    assert "not an image" in report["problem"][2]
    assert set(report["action"]) == {"left out"}
    table = dataset.manifest.table
    assert (table["flags"] == "unreadable").sum() == 3
    assert set(table.loc[table["flags"] == "unreadable", "split"]) == {""}
    assert sum(len(examples) for examples in dataset.splits.values()) == 77


def test_too_many_bad_files_stop_with_count_share_and_the_first_three(tmp_path, preprocessing):
    write_classes(tmp_path, {"a": 20, "b": 20})
    for index in range(4):
        (tmp_path / "a" / f"00{index}.png").write_bytes(b"")
    spec = DataConfig(source=str(tmp_path))
    message = error_of(lambda: load(spec, "classify", seed=0, preprocessing=preprocessing), DataCheckError)
    assert "4 of 40 pictures (10.0%)" in message
    assert "000.png" in message
    assert "002.png" in message
    assert "003.png" not in message
    assert "and 1 more" in message
    assert "data check" in message
    lenient = DataConfig(source=str(tmp_path), max_bad=0.1)
    assert len(load(lenient, "classify", seed=0, preprocessing=preprocessing).report) == 4


def test_duplicates_and_conflicts_are_flagged(tmp_path, preprocessing):
    write_classes(tmp_path, {"a": 10, "b": 10})
    for twin in (tmp_path / "a" / "zz.png", tmp_path / "b" / "zz.png"):
        twin.write_bytes((tmp_path / "a" / "000.png").read_bytes())
    dataset = load(DataConfig(source=str(tmp_path)), "classify", seed=0, preprocessing=preprocessing)
    flags = dataset.manifest.table.set_index("path")["flags"]
    assert flags[str(tmp_path / "a" / "000.png")] == ""
    assert flags[str(tmp_path / "a" / "zz.png")] == "duplicate"
    assert flags[str(tmp_path / "b" / "zz.png")] == "duplicate conflict"
    assert "labelled 'b' and not 'a'" in dataset.report["problem"][1]
    report = check(DataConfig(source=str(tmp_path)))
    assert report.ok
    assert [len(group) for group in report.duplicates] == [3]
    assert [len(group) for group in report.conflicts] == [3]


def test_pictures_that_do_not_fit_the_memory_are_kept_on_the_disk(tmp_path, preprocessing):
    write_classes(tmp_path, {"a": 10, "b": 10})

    def train(**limits):
        spec = DataConfig(source=str(tmp_path), **limits)
        return load(spec, "classify", seed=0, preprocessing=preprocessing).splits["train"]

    in_memory, on_disk, again = train(), train(memory=1e-6), train(memory=1e-6, disk=0)
    assert in_memory.samples.mapping is None
    assert on_disk.samples.mapping is not None
    np.testing.assert_array_equal(on_disk.samples, in_memory.samples)
    on_disk.release()  # the file still has them
    np.testing.assert_array_equal(on_disk.take([3, 1]).samples, np.asarray(in_memory.samples)[[3, 1]])
    assert again.samples is None
    assert len(again.paths) == 14


# Tables


def make_table(folder: Path, **columns) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    for number in range(count):
        write_picture(folder / "images" / f"{number}.png", number)
    return pd.DataFrame({"path": [f"images/{number}.png" for number in range(count)], **columns})


@pytest.mark.parametrize("ending", ["csv", "parquet", "tsv"])
def test_table_gives_the_same_rows_in_every_format(tmp_path, preprocessing, ending):
    frame = make_table(tmp_path, label=["NA", "007"] * 10)
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    dataset = load(DataConfig(source=str(path)), "classify", seed=0, preprocessing=preprocessing)
    assert dataset.manifest.classes == ("007", "NA")
    assert dataset.manifest.table["path"][3] == str(tmp_path / "images" / "3.png")
    assert len(dataset.splits["train"]) == 14
    assert dataset.name == "rows"


def test_split_column_is_honoured_and_empty_cells_are_left_out(tmp_path, preprocessing):
    splits = ["train"] * 8 + ["val", "dev", "test", "Test", "", "train"]
    make_table(tmp_path, label=["a", "b"] * 7, split=splits).to_csv(tmp_path / "rows.csv", index=False)
    dataset = load(
        DataConfig(source=str(tmp_path / "rows.csv")), "classify", seed=0, preprocessing=preprocessing
    )
    assert dataset.manifest.table["split"].tolist() == (
        ["train"] * 8 + ["validation", "validation", "test", "test", "", "train"]
    )
    assert dataset.report["action"].tolist() == ["left out"]


def test_groups_never_straddle_and_shares_are_near(tmp_path, preprocessing):
    patients = [f"p{number // 3}" for number in range(120)]
    frame = make_table(tmp_path, label=["a", "b", "a"] * 40, patient=patients)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    spec = DataConfig(source=str(tmp_path / "rows.csv"), split=Split(group_by="patient"))
    table = load(spec, "classify", seed=0, preprocessing=preprocessing).manifest.table
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert table["split"].value_counts().to_dict() == {"train": 84, "validation": 18, "test": 18}
    other = load(spec, "classify", seed=1, preprocessing=preprocessing).manifest.table
    assert not table["split"].equals(other["split"])


def test_multilabel_from_one_column_and_from_several(tmp_path, preprocessing):
    tags = ["red|round", "round", "", "red"] * 5
    make_table(tmp_path, label=tags).to_csv(tmp_path / "one.csv", index=False)
    one = load(
        DataConfig(source=str(tmp_path / "one.csv")), "multilabel", seed=0, preprocessing=preprocessing
    )
    columns = {name: [int(name in text.split("|")) for text in tags] for name in ("round", "red")}
    make_table(tmp_path, **columns).to_csv(tmp_path / "two.csv", index=False)
    spec = DataConfig(source=str(tmp_path / "two.csv"), columns=Columns(label=("round", "red")))
    two = load(spec, "multilabel", seed=0, preprocessing=preprocessing)
    assert one.manifest.classes == two.manifest.classes == ("red", "round")
    for name in ("train", "validation", "test"):
        assert one.splits[name].targets.dtype == np.float32
        rows = two.manifest.table.set_index("id").loc[two.splits[name].ids, "label"]
        expected = [[float("red" in text), float("round" in text)] for text in rows]
        np.testing.assert_array_equal(two.splits[name].targets, expected)


def test_regression_takes_one_number_or_several(tmp_path, preprocessing):
    numbers = np.linspace(-1, 30, 40)
    make_table(tmp_path, label=numbers, width=numbers**2).to_csv(tmp_path / "rows.csv", index=False)
    path = str(tmp_path / "rows.csv")
    one = load(DataConfig(source=path), "regress", seed=0, preprocessing=preprocessing)
    assert one.manifest.classes is None
    assert one.splits["train"].targets.shape == (28,)
    assert one.splits["train"].targets.dtype == np.float32
    means = [examples.targets.mean() for examples in one.splits.values()]
    assert np.ptp(means) < 4, "stratified by quantile, the splits have about the same mean"
    two = load(
        DataConfig(source=path, columns=Columns(label=("label", "width"))),
        "regress",
        seed=0,
        preprocessing=preprocessing,
    )
    assert two.splits["train"].targets.shape == (28, 2)


# In Python


def test_arrays_lists_frames_and_tf_datasets_give_the_same_samples(tmp_path, preprocessing):
    pictures = np.stack([picture(number) for number in range(20)])
    labels = np.arange(20) % 2
    paths = [write_picture(tmp_path / f"{number}.png", number) for number in range(20)]
    dataset = tf.data.Dataset.from_tensor_slices((pictures, labels))
    sources = {
        "array": (pictures, labels),
        "list": (list(pictures), labels.tolist()),
        "paths": (paths, labels),
        "frame": pd.DataFrame({"path": [str(path) for path in paths], "label": labels}),
        "singles": dataset,
        "batches": dataset.batch(3),
    }
    loaded = {
        name: load(DataConfig(), "classify", seed=0, preprocessing=preprocessing, source=source)
        for name, source in sources.items()
    }
    for name, one in loaded.items():
        assert one.manifest.classes == ("0", "1"), name
        for split, examples in one.splits.items():
            expected = loaded["array"].splits[split]
            np.testing.assert_array_equal(examples.targets, expected.targets, err_msg=name)
            np.testing.assert_array_equal(examples.samples, expected.samples, err_msg=name)
    assert loaded["array"].splits["train"].paths is None
    assert set(loaded["array"].manifest.table["path"]) == {""}


def test_whole_numbers_are_classes_in_numeric_order(preprocessing):
    pictures = [picture(number) for number in range(48)]
    dataset = load(
        DataConfig(), "classify", seed=0, preprocessing=preprocessing, source=(pictures, np.arange(48) % 12)
    )
    assert dataset.manifest.classes == tuple(str(number) for number in range(12))


def test_weights_stay_with_their_examples(preprocessing):
    pictures = [picture(number) for number in range(20)]
    labels = np.arange(20) % 2
    source = (pictures, labels, 10.0 + labels)
    dataset = load(DataConfig(), "classify", seed=0, preprocessing=preprocessing, source=source)
    for examples in dataset.splits.values():
        np.testing.assert_array_equal(examples.weights, 10.0 + examples.targets)


def test_endless_and_oversized_datasets_are_refused(preprocessing):
    dataset = tf.data.Dataset.from_tensors((picture(0), 1))
    for source, word in ((dataset.repeat(), "never ends"), (dataset.repeat(900), "data.memory")):
        message = error_of(
            lambda source=source: load(
                DataConfig(memory=1e-3), "classify", seed=0, preprocessing=preprocessing, source=source
            )
        )
        assert word in message


# Samples


def test_digits_follow_their_own_rule_unless_the_split_is_set(preprocessing):
    dataset = load(DataConfig(source="digits"), "classify", seed=0, preprocessing=preprocessing)
    assert {name: len(examples) for name, examples in dataset.splits.items()} == {
        "train": 1213,
        "validation": 135,
        "test": 449,
    }
    assert np.max(dataset.splits["train"].samples) == 255
    own = load(
        DataConfig(source="digits", split=Split(test=0.5)), "classify", seed=0, preprocessing=preprocessing
    )
    assert len(own.splits["test"]) == 899


def test_a_resolved_sample_split_reads_back_to_the_same():
    resolved = resolve_sample_split(DataConfig(source="elpv"))
    assert resolved.split == Split(test=0.25, validation=0.075, stratify_by="probability")
    again = DataConfig.model_validate(resolved.model_dump(mode="json"))
    assert resolve_sample_split(again) == resolved


@pytest.mark.real
def test_elpv_protocol(preprocessing):
    dataset = load(DataConfig(source="elpv"), "classify", seed=0, preprocessing=preprocessing)
    table = dataset.manifest.table
    assert {name: len(examples) for name, examples in dataset.splits.items()} == {
        "train": 1771,
        "validation": 197,
        "test": 656,
    }
    assert set(table["label"]) == {"defective", "functional"}
    assert ((table["probability"] > 0.5) == (table["label"] == "defective")).all()
    shares = pd.crosstab(table["probability"], table["split"], normalize="columns")
    assert (shares.max(axis=1) - shares.min(axis=1)).max() < 0.005


# For another model's classes


def test_all_of_other_data_can_be_one_split_with_known_classes(tmp_path, preprocessing):
    write_classes(tmp_path, {"b": 3})
    spec = DataConfig(source=str(tmp_path))
    dataset = load(spec, "classify", seed=0, preprocessing=preprocessing, classes=("a", "b"), only="test")
    assert dataset.splits["test"].targets.tolist() == [1, 1, 1]
    assert list(dataset.splits) == ["test"]
    message = error_of(
        lambda: load(spec, "classify", seed=0, preprocessing=preprocessing, classes=("a", "c"), only="test"),
        DataCheckError,
    )
    assert "does not know: b" in message


# Bad input


def test_wrong_sources_are_named_with_the_way_out(tmp_path, preprocessing):
    def read(source, task="classify", **options):
        return error_of(
            lambda: load(DataConfig(**options), task, seed=0, preprocessing=preprocessing, source=source)
        )

    assert "Did you mean the sample 'digits'?" in read("digit")
    assert "no such file or folder" in read(str(tmp_path / "nowhere"))
    assert "No data was given" in read(None)
    assert "No data was given" in read(" ")
    assert "inputs must be an array or a list, received dict" in read(({"a": 1}, [1]))
    assert "received" in read((1, 2, 3, 4))
    assert "dict" in read({"a": 1})
    (tmp_path / "empty").mkdir()
    assert "is empty" in read(str(tmp_path / "empty"))
    write_picture(tmp_path / "flat" / "x.png", 0)
    assert "no class folder" in read(str(tmp_path / "flat"))
    write_classes(tmp_path / "untrained" / "test", {"a": 2, "b": 2})
    write_classes(tmp_path / "untrained" / "val", {"a": 2, "b": 2})
    assert "no 'train' folder" in read(str(tmp_path / "untrained"))
    (tmp_path / "model.bin").write_bytes(b"x")
    assert ".csv" in read(str(tmp_path / "model.bin"))
    assert "one length" in read(([picture(0)], [1, 2]))


def test_wrong_tables_are_named_with_the_way_out(tmp_path, preprocessing):
    def read(task="classify", frame=None, **options):
        frame.to_csv(tmp_path / "rows.csv", index=False)
        spec = DataConfig(source=str(tmp_path / "rows.csv"), **options)
        return error_of(lambda: load(spec, task, seed=0, preprocessing=preprocessing))

    frame = make_table(tmp_path, label=["a", "b"] * 10, kind=["x"] * 20)
    assert "Did you mean 'label'?" in read(frame=frame, columns=Columns(label="labels"))
    assert "data.columns.path" in read(frame=frame, columns=Columns(path="file"))
    assert "data.split.group_by" in read(frame=frame, split=Split(group_by="patient"))
    assert "no rows" in read(frame=frame[:0])
    missing = frame.assign(path=["gone.png", *frame["path"][1:]])
    message = read(frame=missing)
    assert "row 1: gone.png" in message
    assert "1 of 20 files are missing" in message
    beside = frame.assign(path=[path.removeprefix("images/") for path in frame["path"]])
    assert "images/0.png" in read(frame=beside)
    assert "'a'" in read("regress", frame)
    assert "--task regress" in read(frame=frame.assign(label=np.linspace(0, 1, 20)))
    assert "split 'holdout'" in read(frame=frame.assign(split=["train", "holdout"] * 10))
    assert "no row has the split 'train'" in read(frame=frame.assign(split="test"))
    assert "task=multilabel" in read(frame=frame, columns=Columns(label=("label", "kind")))
    (tmp_path / "rows.csv").write_text("path;label\na;b\n")
    spec = DataConfig(source=str(tmp_path / "rows.csv"))
    assert "';'" in error_of(lambda: load(spec, "classify", seed=0, preprocessing=preprocessing))
    (tmp_path / "rows.csv").write_bytes(b"")
    assert "rows.csv" in error_of(lambda: load(spec, "classify", seed=0, preprocessing=preprocessing))
    (tmp_path / "rows.csv").write_bytes(b"path,label\n\xff\xfe,b\n")
    assert "UTF-8" in error_of(lambda: load(spec, "classify", seed=0, preprocessing=preprocessing))


def test_examples_that_do_not_pass_are_named_with_the_way_out(tmp_path, preprocessing):
    def read(folder, task="classify"):
        spec = DataConfig(source=str(folder))
        return error_of(lambda: load(spec, task, seed=0, preprocessing=preprocessing), DataCheckError)

    write_classes(tmp_path / "one" / "images", {"a": 5, "b": 5})
    message = read(tmp_path / "one")
    assert "only one class, 'images'" in message
    assert f"use {tmp_path / 'one' / 'images'}" in message
    (write_classes(tmp_path / "hollow", {"a": 9, "b": 9}) / "c").mkdir()
    assert "hold no picture: c" in read(tmp_path / "hollow")
    write_classes(tmp_path / "unseen" / "train", {"a": 9, "b": 9})
    write_classes(tmp_path / "unseen" / "test", {"a": 2, "z": 2})
    assert "labels in test are not in train: z" in read(tmp_path / "unseen")
    frame = make_table(tmp_path, label=["a", "", "b", None] * 5)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    message = read(tmp_path / "rows.csv")
    assert "10 of 20 labels are missing" in message
    assert "row 2, 4, 6, and 7 more" in message
    frame.assign(label=[1.0, 2.0, np.inf, 3.0] * 5).to_csv(tmp_path / "rows.csv", index=False)
    assert "not finite" in read(tmp_path / "rows.csv", "regress")


def test_stray_spaces_around_labels_are_cut_off_and_reported(tmp_path, preprocessing):
    make_table(tmp_path, label=["cat", "dog", " cat", "dog "] * 5).to_csv(tmp_path / "rows.csv", index=False)
    dataset = load(
        DataConfig(source=str(tmp_path / "rows.csv")), "classify", seed=0, preprocessing=preprocessing
    )
    assert dataset.manifest.classes == ("cat", "dog")
    assert dataset.report["action"].tolist() == ["read as 'cat'", "read as 'dog'"]


def test_labels_of_a_weird_type_are_refused(preprocessing):
    pictures = [picture(number) for number in range(4)]
    message = error_of(
        lambda: load(
            DataConfig(), "classify", seed=0, preprocessing=preprocessing, source=(pictures, [{}, {}, {}, {}])
        )
    )
    assert "dict" in message


def test_a_folder_without_permission_is_named(tmp_path, preprocessing, monkeypatch):
    write_classes(tmp_path, {"a": 4, "b": 4})

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    spec = DataConfig(source=str(tmp_path))
    message = error_of(lambda: load(spec, "classify", seed=0, preprocessing=preprocessing), StorageError)
    assert str(tmp_path) in message
    assert "Permission denied" in message


# The check


def test_check_counts_and_names_without_raising(tmp_path):
    write_classes(tmp_path / "train", {"a": 6, "b": 3})
    write_classes(tmp_path / "test", {"a": 2, "z": 2}, start=100)
    write_picture(tmp_path / "train" / "a" / "wide.png", 999, side=64)
    (tmp_path / "train" / "b" / "bad.png").write_bytes(b"BAD")
    report = check(DataConfig(source=str(tmp_path)))
    assert not report.ok
    assert report.examples == 15
    assert report.usable == 14
    assert report.splits == {"train": 10, "test": 4}
    assert report.classes["a"] == {"train": 7, "test": 2}
    assert report.classes["z"] == {"train": 0, "test": 2}
    assert report.sizes["width"] == {"min": 20.0, "median": 20.0, "max": 64.0}
    assert [Path(line["path"]).name for line in report.unreadable] == ["bad.png"]
    assert any("not in train: z" in problem for problem in report.problems)
    assert any("max_bad" in problem for problem in report.problems)
    assert report.to_dict()["ok"] is False


def test_check_of_numbers_gives_their_spread(tmp_path):
    make_table(tmp_path, label=[1.5, 2.5, 9.0]).to_csv(tmp_path / "rows.csv", index=False)
    report = check(DataConfig(source=str(tmp_path / "rows.csv")), "regress")
    assert report.ok
    assert report.values == {"0": {"min": 1.5, "median": 2.5, "max": 9.0}}
    assert report.classes == {}
