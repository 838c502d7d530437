"""tlkit cache: what is stored, and clearing it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tlkit.cli import main
from tlkit.features import ColumnSpec, DiskTable, features_folder, stored_tables
from tlkit.zoo.datasets import hold, keep_dataset


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


def store(key):
    about = {"backbone": "small", "boundary": "block1_relu (4, 4, 6)", "storage": "float32"}
    table = DiskTable(features_folder() / key, [ColumnSpec("features", "float32", (3,))], about)
    with table.filling():
        table.add([bytes(16)], [np.ones((1, 3), np.float32)], {})
    return table


def test_an_empty_cache_says_where_it_would_be(capsys, tmp_path):
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out.strip() == f"No features in {tmp_path / 'home' / 'features'}."
    assert main(["cache", "clear"]) == 0
    assert "Removed 0 tables of features" in capsys.readouterr().out


def test_tables_are_listed_with_what_is_in_them(capsys):
    store("one").leave()
    store("two")
    assert main(["cache", "list"]) == 0
    shown = capsys.readouterr().out
    assert "block1_relu (4, 4, 6)" in shown
    assert main(["cache", "list", "--json"]) == 0
    listed = {each["key"]: each for each in json.loads(capsys.readouterr().out)}
    assert set(listed) == {"one", "two"}
    assert listed["one"]["backbone"] == "small"
    assert listed["one"]["bytes"] > 12


def test_clearing_leaves_what_is_open(capsys):
    store("one").leave()
    table = store("two")
    assert main(["cache", "clear"]) == 0
    assert "Removed 1 table of features" in capsys.readouterr().out
    assert [each.key for each in stored_tables()] == ["two"]
    table.leave()
    assert main(["cache", "clear"]) == 0
    assert stored_tables() == []


def test_copies_of_data_are_listed_and_cleared_but_for_those_in_use(capsys):
    made = {}

    def make(folder):
        made[folder] = (folder / "data.csv").write_text("text,label\n")

    for source in ("gs://bucket/a", "gs://bucket/b"):
        keep_dataset([source], "a", {"source": source}, make)
        keep_dataset([source], "a", {"source": source}, make)
    assert len(made) == 2
    assert main(["cache", "list"]) == 0
    shown = capsys.readouterr().out
    assert "gs://bucket/a" in shown
    assert shown.count("yes") == 2
    hold.cache_clear()  # as when the process ends
    kept = keep_dataset(["gs://bucket/b"], "a", {"source": "gs://bucket/b"}, make)
    assert main(["cache", "clear"]) == 0
    assert "Removed 1 copy of data" in capsys.readouterr().out
    assert main(["cache", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["source"], listed["name"]) == ("gs://bucket/b", "a")
    assert (kept / "data.csv").exists()
