"""Decoded pictures: selecting copies none, the disk keeps what it took, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tlkit.data import pictures as module
from tlkit.data.pictures import Pictures, pictures_in_memory, pictures_on_disk
from tlkit.data.tensors import as_tensor
from tlkit.errors import StorageError

SHAPE = (6, 9, 7, 3)


def make(kind: str, folder: Path) -> Pictures:
    made = pictures_in_memory(SHAPE) if kind == "memory" else pictures_on_disk(SHAPE, folder)
    for number in range(len(made)):
        made[number] = np.full(SHAPE[1:], number, np.uint8)
    return made


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_selected_pictures_are_those_of_the_one_array(kind: str, tmp_path: Path) -> None:
    made = make(kind, tmp_path)
    chosen = made[np.array([4, 1, 5])][[2, 0]]
    assert chosen.array is made.array
    assert chosen.shape == (2, *SHAPE[1:])
    assert [int(picture[0, 0, 0]) for picture in chosen] == [5, 4]
    assert np.asarray(chosen)[:, 0, 0, 0].tolist() == [5, 4]
    assert len(made[1:4]) == 3


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_tensors_lie_on_the_memory_of_the_pictures(kind: str, tmp_path: Path) -> None:
    made = make(kind, tmp_path)
    tensor = as_tensor(made.array)
    made[3] = np.full(SHAPE[1:], 200, np.uint8)
    assert int(tensor[3, 0, 0, 0]) == 200


def test_what_was_released_is_read_again_from_the_file(tmp_path: Path) -> None:
    made = make("disk", tmp_path)
    tensor = as_tensor(made.array)
    made.release()
    assert tf.gather(tensor, [2])[0, 0, 0, 0] == 2
    assert list(tmp_path.iterdir()) == []  # the file has no name, so nothing is left of it


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot hold decoded pictures"):
        pictures_on_disk(SHAPE, tmp_path / "file")
    monkeypatch.setattr(module, "_LEFT_FREE", 2**62)
    with pytest.raises(StorageError, match="too many for the"):
        pictures_on_disk(SHAPE, tmp_path)
