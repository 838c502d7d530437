"""Data on an object store is copied once, whole or not at all; nothing else is read or written there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

import tlkit
from tlkit import zoo
from tlkit.config import DataConfig, PreprocessingConfig, load_config
from tlkit.data import Dataset, check, load, modality_of
from tlkit.data.copying import copy_files
from tlkit.data.elsewhere import brought_here
from tlkit.data.remote import copy_here
from tlkit.errors import ConfigError, DataError, FetchError
from tlkit.places import address_of
from tlkit.preprocessing import make_preprocessing
from tlkit.results import RunFolder, list_runs, write_text
from tlkit.workflows.finetune import run_finetune
from tlkit.workflows.predict_pictures import expand
from tlkit.zoo.datasets import datasets_folder, stored_datasets
from tlkit.zoo.entry import ImageInput
from tlkit.zoo.reference import parse_reference

from conftest import make_pictures
from record_files import examples_of, write_file


@pytest.fixture(autouse=True)
def _seeded_keras() -> None:
    """Nothing here draws from Keras, and seeding it makes TensorFlow build the decoder again in each test."""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path.with_name(f"{tmp_path.name}-home")))
    copy_here.cache_clear()


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    """An address in memory with `photos/`, `cells.csv` beside it, and `photos.tfrecord`."""
    address = f"memory://{tmp_path.name}"
    local = tmp_path / "local"
    photos = make_pictures(local / "photos", per_class=8)
    rows = [
        {"path": str(path.relative_to(local)), "label": path.parent.name}
        for path in sorted(photos.rglob("*.png"))
    ]
    pd.DataFrame(rows[:12]).to_csv(local / "cells.csv", index=False)
    pd.DataFrame({"text": ["a", "b"], "label": [0, 1]}).to_csv(local / "texts.csv", index=False)
    write_file(local / "records" / "photos-00000-of-00001.tfrecord", examples_of(photos))
    put(local, address)
    return address


def put(local: Path, address: str) -> None:
    store = fsspec.filesystem("memory")
    for path in local.rglob("*"):
        if path.is_file():
            store.pipe_file(f"{address}/{path.relative_to(local)}", path.read_bytes())


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are read from now on."""
    seen: list[str] = []
    kind = type(fsspec.filesystem("memory"))
    real = kind._open

    def count(self: Any, path: str, *args: Any, **options: Any) -> Any:
        seen.append(path)
        return real(self, path, *args, **options)

    monkeypatch.setattr(kind, "_open", count)
    return seen


def load_pictures(source: str) -> Dataset:
    spec = PreprocessingConfig(image_size=16, augment="none")
    preprocessing = make_preprocessing(ImageInput(image_size=16, min_image_size=8), spec)
    return load(DataConfig(source=source), "classify", seed=0, preprocessing=preprocessing)


def test_a_folder_is_copied_once_and_read_like_any_other(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = opened(monkeypatch)
    found = load_pictures(f"{bucket}/photos")
    assert len(seen) == 24
    expected = load_pictures(str(tmp_path / "local" / "photos"))
    columns = ["id", "label", "split", "hash"]
    pd.testing.assert_frame_equal(found.manifest.table[columns], expected.manifest.table[columns])
    assert found.name == "photos"
    copy_here.cache_clear()  # as in another process
    load_pictures(f"{bucket}/photos")
    assert len(seen) == 24
    (stored,) = stored_datasets()
    assert stored.about["source"] == f"{bucket}/photos"


def test_what_has_changed_is_copied_anew(bucket: str) -> None:
    first = Path(brought_here(f"{bucket}/photos", DataConfig()))
    store = fsspec.filesystem("memory")
    store.rm(f"{bucket}/photos/red/00.png")
    store.pipe_file(f"{bucket}/photos/red/.hidden.png", b"x")
    copy_here.cache_clear()
    second = Path(brought_here(f"{bucket}/photos", DataConfig()))
    assert second != first
    assert len(list(first.rglob("*.png"))) - len(list(second.rglob("*.png"))) == 1


def test_a_table_brings_the_pictures_that_it_names(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = opened(monkeypatch)
    assert modality_of(f"{bucket}/cells.csv", DataConfig()) == "image"
    assert len(load_pictures(f"{bucket}/cells.csv").manifest.table) == 12
    assert len(seen) == 13
    assert modality_of(f"{bucket}/texts.csv", DataConfig()) == "text"
    assert check(DataConfig(source=f"{bucket}/texts.csv")).examples == 2


@pytest.mark.parametrize("place", ["records", "records/photos-00000-of-00001.tfrecord", "rec*/*.tfrecord"])
def test_records_are_copied(bucket: str, place: str) -> None:
    assert len(load_pictures(f"{bucket}/{place}").manifest.table) == 24


def test_a_copy_is_there_whole_or_not_at_all(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(fsspec.filesystem("memory"))
    real = kind._open

    def fail(self: Any, path: str, *args: Any, **options: Any) -> Any:
        if path.endswith("red/03.png"):
            raise PermissionError(13, "no permission for this one")
        return real(self, path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "_open", fail)
        with pytest.raises(FetchError, match="red/03.png cannot be read: .*no permission"):
            brought_here(f"{bucket}/photos", DataConfig())
    assert stored_datasets() == []
    assert [path for path in datasets_folder().iterdir() if path.is_dir()] == []
    assert len(list(Path(brought_here(f"{bucket}/photos", DataConfig())).rglob("*.png"))) == 24


class Unsteady:
    """A store with one file that nobody may read, and others that never end."""

    def __init__(self) -> None:
        self.reads = 0

    def open(self, path: str, mode: str, block_size: int) -> Any:
        if path.endswith("forbidden"):
            raise PermissionError(13, "no permission")
        return self

    def __enter__(self) -> Unsteady:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, size: int) -> bytes:
        time.sleep(0.01)
        self.reads += 1
        return b"more" if self.reads < 20_000 else b""


def test_a_copy_that_fails_does_not_wait_for_the_others(tmp_path: Path) -> None:
    store = Unsteady()
    with pytest.raises(FetchError, match="bucket/forbidden cannot be read: .*no permission"):
        copy_files(store, "bucket", dict.fromkeys(["a", "b", "forbidden"]), tmp_path, "gs://bucket")
    assert store.reads < 10_000


def test_a_name_that_leads_out_of_the_folder_is_refused(bucket: str) -> None:
    frame = pd.DataFrame({"path": ["../elsewhere.png"], "label": ["a"]})
    fsspec.filesystem("memory").pipe_file(f"{bucket}/bad.csv", frame.to_csv(index=False).encode())
    with pytest.raises(DataError, match=r"'../elsewhere.png' leads out of its folder"):
        brought_here(f"{bucket}/bad.csv", DataConfig())


def test_what_is_not_there_and_what_is_not_read_are_named(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        brought_here(f"{bucket}/nothing", DataConfig())
    with pytest.raises(ConfigError, match=r"Allowed: paths, gs://…, s3://…"):
        brought_here("https://example.com/photos.csv", DataConfig())
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"gs:// needs the extra remote: pip install 'tlkit\[remote\]'"):
        brought_here("gs://bucket/photos", DataConfig())


def test_without_downloads_the_last_copy_is_read(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    with pytest.raises(FetchError, match="TLKIT_OFFLINE forbids downloads"):
        brought_here(f"{bucket}/photos", DataConfig())
    monkeypatch.delenv("TLKIT_OFFLINE")
    copied = brought_here(f"{bucket}/photos", DataConfig())
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    copy_here.cache_clear()
    fsspec.filesystem("memory").rm(f"{bucket}/photos", recursive=True)
    assert brought_here(f"{bucket}/photos", DataConfig()) == copied
    monkeypatch.setitem(sys.modules, "fsspec", None)  # nor is its library asked for anything
    copy_here.cache_clear()
    assert brought_here(f"{bucket}/photos", DataConfig()) == copied


@pytest.mark.parametrize(
    "write",
    [
        lambda: load_config({"out": "gs://bucket/run"}),
        lambda: tlkit.finetune("photos", out="s3://bucket/run"),
        lambda: RunFolder.create("gs://bucket/run", "photos", "b0"),
        lambda: RunFolder.require_free(Path("gs://bucket/run")),
        lambda: tlkit.load("gs://bucket/run"),
        lambda: list_runs("gs://bucket/runs"),
        lambda: load_config("gs://bucket/config.yaml"),
        lambda: parse_reference("gs://bucket/model.keras"),
        lambda: parse_reference("hub:gs://bucket/model"),
        lambda: run_finetune(load_config().config.model_copy(update={"out": "gs://bucket/run"}), resume=True),
        lambda: tlkit.export("runs/none", "gs://bucket/served/1"),
        lambda: write_text("s3://bucket/file.txt", "text"),
        lambda: zoo.export_to("gs://bucket/home", []),
        lambda: expand(None, ["gs://bucket/new/one.jpg"]),  # type: ignore[arg-type]
    ],
)
def test_an_object_store_is_refused_by_name_wherever_else_a_path_is_asked_for(
    write: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be at (gs|s3)://bucket/.*Mount it"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_cannot_be_on_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_HOME", "gs://bucket/home")
    with pytest.raises(ConfigError, match=r"TLKIT_HOME\) cannot be at gs://bucket/home"):
        zoo.home()
    monkeypatch.setenv("TLKIT_ZOO", "s3://bucket/model_zoo.yaml")
    with pytest.raises(ConfigError, match=r"TLKIT_ZOO\) cannot be at s3://bucket/model_zoo.yaml"):
        zoo.entries()


def test_addresses_are_told_from_paths() -> None:
    assert address_of(Path("gs://bucket/a")) == address_of("GS://bucket/a") == "gs://bucket/a"
    assert [address_of(path) for path in ("/a", "a/b", "C:/a", "./gs:/a", "hf:owner/name", "")] == [None] * 6
