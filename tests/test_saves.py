"""Saves are whole or not there, and a damaged one gives way to the one before."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from tlkit.errors import StorageError
from tlkit.results import Saves, is_plain


def test_what_is_saved_comes_back_as_it_was(tmp_path):
    tree = {
        "numbers": [1, 2.5, math.inf, -math.inf, True, None],
        "text": "x",
        "state": ("MT19937", np.arange(5, dtype="uint32"), 3),
        "arrays": {
            "half": np.ones(3, ml_dtypes.bfloat16) / 3,
            "words": np.array(["a", "bc"]),
            "0d": np.array(2.0),
        },
        "scalar": np.float32(0.1),
        "empty": [{}, [], ()],
    }
    saves = Saves(tmp_path / "state")
    saves.write(tree)
    found, damaged = saves.read()
    assert damaged == []
    assert found["numbers"] == tree["numbers"]
    assert isinstance(found["state"], tuple)
    assert found["state"][0] == "MT19937"
    np.testing.assert_array_equal(found["state"][1], tree["state"][1])
    for name, array in tree["arrays"].items():
        assert found["arrays"][name].dtype == array.dtype
        np.testing.assert_array_equal(found["arrays"][name], array)
    assert found["scalar"] == np.float32(0.1)
    assert type(found["scalar"]) is np.float32
    assert found["empty"] == [{}, [], ()]
    saves.write({"nan": math.nan})
    assert math.isnan(saves.read()[0]["nan"])


@pytest.mark.parametrize("value", [object(), {1: "a"}, np.array([object()]), [lambda: 0], b"bytes"])
def test_what_no_save_can_hold_is_told_before(value, tmp_path):
    assert not is_plain({"a": value})
    with pytest.raises(TypeError):
        Saves(tmp_path).write(value)
    assert Saves(tmp_path).read() == (None, [])


def test_two_saves_are_kept_and_a_number_is_never_used_again(tmp_path):
    saves = Saves(tmp_path)
    for number in range(5):
        saves.write({"number": number, "array": np.full(3, number)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000004.json", "000004.npz", "000005.json", "000005.npz"
    ]  # fmt: skip
    assert saves.read()[0]["number"] == 4
    saves.clear()
    assert saves.read() == (None, [])


@pytest.mark.parametrize("kind", ["json", "npz"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_save_gives_way_to_the_one_before(kind, damage, tmp_path):
    saves = Saves(tmp_path)
    for number in range(2):
        saves.write({"number": number, "array": np.full(300, number)})
    file = tmp_path / f"000002.{kind}"
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data[:-9] if damage == "cut" else data)
    found, damaged = saves.read()
    assert found["number"] == 0
    saves.remove_damaged()
    saves.write({"number": 2})
    assert saves.read()[0]["number"] == 2
    (tmp_path / f"{max(saves._numbers('json')):06d}.npz").unlink()
    assert saves.read()[0]["number"] == 0, "what is damaged is none of the two that are kept"
    # Arrays without JSON are of a save that was never finished, which is nothing to speak of.
    assert len(damaged) == (0 if (kind, damage) == ("json", "gone") else 1)


def test_a_full_disk_leaves_the_saves_before(tmp_path, monkeypatch):
    saves = Saves(tmp_path)
    saves.write({"number": 1, "array": np.zeros(3)})
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(StorageError, match="No space left"):
        saves.write({"number": 2, "array": np.zeros(3)})
    assert saves.read()[0]["number"] == 1
    assert not list(tmp_path.glob("*partial*"))


def test_arrays_without_what_makes_them_a_save_do_not_take_room(tmp_path, monkeypatch):
    saves = Saves(tmp_path)
    saves.write({"number": 1, "array": np.zeros(3)})

    def refuse(path, text):
        raise StorageError(f"Cannot write {path}: No space left on device.")

    monkeypatch.setattr("tlkit.results.saves.write_text", refuse)
    with pytest.raises(StorageError, match="000002.json: No space left"):
        saves.write({"number": 2, "array": np.zeros(3)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.json", "000001.npz"]
