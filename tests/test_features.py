"""Tables of features: what was added is there again, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tlkit.errors import StorageError
from tlkit.features import (
    ALIGNMENT,
    ColumnSpec,
    DiskTable,
    MemoryTable,
    clear,
    features_folder,
    make_room,
    stored_tables,
)
from tlkit.features import folder as folder_of_tables

SPECS = (ColumnSpec("features", "float32", (2,), "tokens"), ColumnSpec("mask", "int32", ()))


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


def name(number):
    return bytes([number]) * 16


def add(table, numbers, lengths):
    flat = np.concatenate([np.full((n, 2), i, np.float32) for i, n in zip(numbers, lengths, strict=True)])
    with table.filling():
        table.add(
            [name(i) for i in numbers],
            [flat, np.array(numbers, np.int32)],
            {"tokens": np.array(lengths, np.int32)},
        )


def folder(key="one"):
    return features_folder() / key


def disk(key="one", specs=SPECS):
    return DiskTable(folder(key), specs, {})


def content(table):
    """What each row holds, by id."""
    features, mask = table.columns()
    found = {}
    for number in range(10):
        (row,) = table.rows([name(number)])
        if row >= 0:
            start, length = features.starts[row], features.lengths[row]
            found[number] = (features.values[start : start + length].tolist(), int(mask.values[row]))
    return found


def expected(numbers, lengths):
    return {i: ([[float(i)] * 2] * n, i) for i, n in zip(numbers, lengths, strict=True)}


@pytest.mark.parametrize("make", [lambda: MemoryTable(SPECS), disk], ids=["memory", "disk"])
def test_rows_are_found_by_their_ids_also_when_more_come(make):
    table = make()
    assert content(table) == {}
    add(table, [1, 2], [3, 1])
    assert content(table) == expected([1, 2], [3, 1])
    add(table, [5], [2])
    assert content(table) == expected([1, 2, 5], [3, 1, 2])
    assert table.rows([name(9), name(5)]).tolist() == [-1, 2]


def test_another_opening_finds_what_was_added():
    table = disk()
    add(table, [1, 2], [3, 1])
    table.leave()
    assert content(disk()) == expected([1, 2], [3, 1])


def test_two_openings_see_each_others_rows_when_they_add():
    first, second = disk(), disk()
    add(first, [1], [1])
    add(second, [2], [2])
    assert content(second) == expected([1, 2], [1, 2])
    assert content(disk()) == expected([1, 2], [1, 2])


def test_what_an_interrupted_filling_had_added_is_kept():
    table = disk()
    row = [np.ones((2, 2), np.float32), np.ones(1, np.int32)], {"tokens": np.array([2])}
    with suppress(KeyboardInterrupt), table.filling():
        table.add([name(1)], *row)
        raise KeyboardInterrupt
    assert content(disk()) == expected([1], [2])


def test_bytes_beyond_the_index_are_overwritten():
    table = disk()
    add(table, [1], [1])
    with next(folder().glob("0-*.bin")).open("ab") as file:
        file.write(b"half a row")
    again = disk()
    add(again, [2], [1])
    assert content(disk()) == expected([1, 2], [1, 1])


@pytest.mark.parametrize("damage", ["truncate", "flip", "index", "about", "other columns", "missing"])
def test_a_damaged_table_is_noticed_and_begun_anew(damage):
    table = disk()
    add(table, [1, 2], [3, 1])
    table.leave()
    file = next(folder().glob("0-*.bin"))
    specs = SPECS
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "flip":
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    elif damage == "index":
        (folder() / "index.npz").write_bytes(b"no index")
    elif damage == "about":
        (folder() / "about.json").write_text('{"version": 0}', encoding="utf-8")
    elif damage == "other columns":
        specs = (ColumnSpec("features", "float16", (2,), "tokens"), SPECS[1])
    else:
        file.unlink()
    again = disk(specs=specs)
    assert len(again) == 0
    if specs is SPECS:
        add(again, [3], [1])
        assert content(disk()) == expected([3], [1])


def test_room_is_made_by_removing_what_was_not_used_for_longest(monkeypatch):
    import os

    for number, key in enumerate(("old", "new")):
        table = disk(key)
        add(table, [1], [100])
        table.leave()
        os.utime(folder(key) / "about.json", (number, number))
    size = stored_tables()[0].size
    make_room(size, 2 * size + 100)
    assert [table.key for table in stored_tables()] == ["new"]
    with pytest.raises(StorageError, match=r"do not fit below the limit of 10 .*cache.limit"):
        make_room(11, 10, keep=folder("new"))
    assert [table.key for table in stored_tables()] == ["new"]


def test_a_table_that_another_process_has_open_stays():
    table = disk()
    add(table, [1], [1])
    table.leave()
    script = (
        "import sys; from pathlib import Path; from tlkit.features import ColumnSpec, DiskTable\n"
        f"t = DiskTable(Path({str(folder())!r}), {SPECS!r}, {{}})\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "open\n"
        assert clear() == (0, 0)
        assert stored_tables()[0].in_use
    finally:
        other.communicate()
    assert clear()[0] == 1
    assert stored_tables() == []


def test_an_empty_table_leaves_nothing_behind():
    disk().leave()
    assert stored_tables() == []


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "file" / "home"))
    Path(tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(StorageError, match=r"The feature cache .* cannot be used: .*cache.mode"):
        disk()
    with pytest.raises(StorageError, match="cannot be used"):
        make_room(1, 10**9)


def test_more_than_the_disk_has_is_refused_before(monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(
        StorageError, match="11 bytes of features need more room than the 10 bytes that are free"
    ):
        make_room(11, 10**9)


def test_rows_that_were_not_written_whole_are_not_there(monkeypatch):
    table = disk()
    add(table, [1], [3])
    write = DiskTable._write

    def fill_the_disk(self, arrays, count):
        write(self, [*arrays[:1], arrays[1][:0]], count)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DiskTable, "_write", fill_the_disk)
    with pytest.raises(StorageError, match="No space left"):
        add(table, [2], [2])
    monkeypatch.setattr(DiskTable, "_write", write)
    for opened in (table, disk()):
        assert content(opened) == expected([1], [3])
        add(opened, [3], [1])
        assert content(opened) == expected([1, 3], [3, 1])


@pytest.mark.parametrize("file", ["index.npz", "about.json"])
@pytest.mark.parametrize("damaged", [b"", b"[]", b"PK\x03\x04 and nothing else", b"null"])
def test_an_index_that_cannot_be_read_is_begun_anew(file, damaged):
    add(disk(), [1], [2])
    (folder() / file).write_bytes(damaged)
    table = disk()
    assert content(table) == {}
    add(table, [2], [2])
    assert content(disk()) == expected([2], [2])


def test_every_half_of_an_index_is_noticed():
    add(disk(), [1, 2], [2, 1])
    whole = (folder() / "index.npz").read_bytes()
    for size in range(0, len(whole), 97):
        (folder() / "index.npz").write_bytes(whole[:size])
        assert content(disk()) == {}


def test_a_table_is_not_removed_under_another_that_fills_it():
    first, second = disk(), disk()
    add(first, [1], [2])
    second.leave()
    assert content(first) == expected([1], [2])


def test_what_does_not_fit_removes_nothing():
    table = disk("one")
    add(table, [1], [2])
    table.leave()
    with pytest.raises(StorageError, match="do not fit below the limit"):
        make_room(10**6, 1000)
    assert [table.key for table in stored_tables()] == ["one"]
    make_room(0, 0)
    assert [table.key for table in stored_tables()] == ["one"]


class FailingOnce:
    """Stands in for `os.fsync`: the disk has no room the first time."""

    def __init__(self):
        self.calls = 0

    def __call__(self, descriptor):
        self.calls += 1
        if self.calls == 1:
            raise OSError(28, "No space left on device")


def refuse(path, arrays):
    raise StorageError(f"Cannot write {path}: No space left on device.")


@pytest.mark.parametrize("what", ["rows", "index"])
def test_rows_that_cannot_be_entered_at_the_end_are_an_error_and_not_there(what, monkeypatch):
    table = disk()
    add(table, [1], [3])
    sizes = [path.stat().st_size for path in sorted(folder().glob("*.bin"))]
    with monkeypatch.context() as patch:
        if what == "rows":
            patch.setattr("os.fsync", FailingOnce())
        else:
            patch.setattr("tlkit.features.table.write_npz", refuse)
        with pytest.raises(StorageError, match="No space left"):
            add(table, [2], [2])
    assert table.rows([name(1), name(2)]).tolist() == [0, -1]
    assert all(handle.closed for handle in table._handles)
    assert [path.stat().st_size for path in sorted(folder().glob("*.bin"))] == sizes, "the room is given back"
    for opened in (table, disk()):
        assert content(opened) == expected([1], [3])
    add(table, [2], [2])
    assert content(disk()) == expected([1, 2], [3, 2])


def test_a_table_that_cannot_be_begun_is_not_left_in_use(monkeypatch):
    def refuse_json(path, value):
        raise StorageError(f"Cannot write {path}")

    monkeypatch.setattr("tlkit.features.table.write_json", refuse_json)
    with pytest.raises(StorageError, match="Cannot write"):
        disk()
    assert stored_tables() == []


def test_files_that_are_gone_by_now_belong_to_nobody(monkeypatch):
    """Another process renames its temporary files and removes its tables while this one looks."""
    for key in ("one", "two"):
        add(disk(key), [1], [3])
    look = Path.stat

    def look_too_late(self, **options):
        if self.suffix == ".bin" or "two" in self.parts:
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return look(self, **options)

    monkeypatch.setattr(Path, "stat", look_too_late)
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    (table,) = stored_tables()
    assert (table.key, table.about["version"]) == ("one", 1)


def test_a_table_that_is_opened_before_it_is_removed_stays(monkeypatch):
    table = disk()
    add(table, [1], [3])
    table.leave()
    find, opened = folder_of_tables.find_room, []

    def open_meanwhile(*args):
        gone = find(*args)
        opened.append(disk())
        return gone

    monkeypatch.setattr(folder_of_tables, "find_room", open_meanwhile)
    with pytest.raises(StorageError, match="do not fit below the limit|cannot be removed"):
        make_room(2000, 2100)
    assert content(opened[0]) == expected([1], [3])


def test_tables_are_opened_and_removed_at_once_by_many():
    """Each is whole to whoever has it open."""
    problems, is_over = [], threading.Event()

    def remove():
        while not is_over.is_set():
            clear()

    def fill(number):
        try:
            for _ in range(25):
                table = disk()
                with table.filling():
                    if table.rows([name(number)])[0] < 0:
                        rows = [np.full((2, 2), number, np.float32), np.array([number], np.int32)]
                        table.add([name(number)], rows, {"tokens": np.array([2], np.int32)})
                assert content(table)[number] == expected([number], [2])[number]
                table.leave()
        except Exception as error:
            problems.append(error)

    removing = threading.Thread(target=remove)
    filling = [threading.Thread(target=fill, args=(number,)) for number in (1, 2)]
    for thread in (removing, *filling):
        thread.start()
    for thread in filling:
        thread.join()
    is_over.set()
    removing.join()
    assert problems == []


def test_a_table_in_memory_is_not_copied_to_be_read():
    rows, each = 64, 5000
    tracemalloc.start()
    table = MemoryTable(SPECS)
    table.reserve([rows * each * 2, rows])
    for number in range(rows):
        add(table, [number], [each])
    values = table.columns()[0].values
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values.shape == (rows * each, 2)
    assert peak < 1.2 * values.nbytes


def test_a_table_in_memory_grows_beyond_its_room_and_stays_readable():
    table = MemoryTable(SPECS)
    table.reserve([2 * 4, 2])
    add(table, [1, 2], [3, 1])
    before = table.columns()[0].values
    add(table, [3, 4], [7, 2])
    assert content(table) == expected([1, 2, 3, 4], [3, 1, 7, 2])
    assert before.tolist() == [[1.0, 1.0]] * 3 + [[2.0, 2.0]]
    assert all(column.values.ctypes.data % ALIGNMENT == 0 for column in table.columns())
