"""The size of the model input where nobody names one."""

import numpy as np
import pytest

from tlkit.config import DataConfig
from tlkit.data import longest_side
from tlkit.preprocessing import default_image_size

from small_models import small_entry


@pytest.mark.parametrize(
    ("side", "size"), [(None, 224), (300, 224), (100, 224), (28, 224), (27, 224), (20, 160), (8, 64), (1, 64)]
)
def test_small_pictures_are_not_blown_up_more_than_eight_times(side, size):
    assert default_image_size(small_entry(224).input, side) == size


def test_the_longest_side_comes_from_files_and_from_arrays(picture_folder):
    assert longest_side(DataConfig(source=str(picture_folder(size=40)))) == 40
    arrays = np.zeros((5, 12, 30, 3), "uint8")
    assert longest_side(DataConfig(), (arrays, [0, 1, 0, 1, 0])) == 30


def test_files_that_cannot_be_read_are_passed_over(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.png").write_bytes(b"no picture")
    assert longest_side(DataConfig(source=str(tmp_path))) is None
