"""Copies of data in the cache folder: made once, whole or not at all, there for as long as they are read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlkit.errors import StorageError
from tlkit.zoo.datasets import (
    clear_datasets,
    datasets_folder,
    find_dataset,
    hold,
    keep_dataset,
    stored_datasets,
)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))
    hold.cache_clear()


def keep(text: str = "text", identity: str = "x") -> Path:
    """A data set of one file, with the source `gs://bucket/<identity>`."""

    def make(folder: Path) -> None:
        (folder / "data.csv").write_text(text)

    return keep_dataset([identity], "data", {"source": f"gs://bucket/{identity}"}, make)


AT_ONCE = """
import os, sys, time
from pathlib import Path
from tlkit.zoo.datasets import keep_dataset

here = Path(sys.argv[1])

def make(folder):
    while len(list(here.iterdir())) < 2:
        time.sleep(0.05)
    (folder / "data.csv").write_text("text")
    with here.with_name("log").open("a") as log:
        log.write("made ")
    time.sleep(4)

(here / str(os.getpid())).touch()
print((keep_dataset(["x"], "data", {"source": "gs://bucket/x"}, make) / "data.csv").read_text())
"""


def test_of_two_processes_that_ask_at_once_one_makes_it_and_the_other_says_that_it_waits(
    tmp_path: Path,
) -> None:
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-c", AT_ONCE, str(tmp_path / "here")]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [out for out, _ in said] == ["text\n"] * 2
    assert (tmp_path / "log").read_text() == "made "
    waiting = "Waiting for another process, which is making a copy of gs://bucket/x\n"
    assert sorted(messages for _, messages in said) == ["", waiting]


def test_what_has_lost_bytes_or_files_is_made_anew() -> None:
    kept = keep("first")
    assert keep("second") == kept
    assert (kept / "data.csv").read_text() == "first"
    (kept / "data.csv").write_text("")
    assert keep("third") == kept
    assert (kept / "data.csv").read_text() == "third"
    (kept / "data.csv").unlink()
    assert find_dataset("gs://bucket/x") is None
    keep("fourth")
    found = find_dataset("gs://bucket/x")
    assert found is not None
    assert (found.data / "data.csv").read_text() == "fourth"


def test_what_killed_processes_left_is_removed() -> None:
    kept = keep()
    key = kept.parent.name
    for left in (f".{key}-abc_1", f".{'0' * 24}-abc", "1" * 24):
        (datasets_folder() / left / "made").mkdir(parents=True)
    (kept.parent / "users" / "1-dead").touch()
    assert keep() == kept
    assert clear_datasets() == (0, 0)  # this process has it open
    assert [path for path in datasets_folder().iterdir() if path.is_dir()] == [kept.parent]
    hold.cache_clear()  # as when the process ends
    keep()
    assert len(list((kept.parent / "users").iterdir())) == 1
    hold.cache_clear()
    assert clear_datasets() == (1, 4)
    assert stored_datasets() == []


def test_a_folder_that_may_only_be_read_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep()
    hold.cache_clear()
    before = sorted(datasets_folder().rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert keep() == kept
    assert sorted(datasets_folder().rglob("*")) == before


def test_no_place_for_the_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StorageError, match="The cache folder .* cannot be used"):
        keep()
