from __future__ import annotations

import pytest

from tlkit.progress import make_console, spinner, track


def test_progress_leaves_nothing_behind_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with spinner("Waiting"):
        assert list(track(range(3), "Counting")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_a_line_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    make_console().print("epoch 1")
    assert capfd.readouterr() == ("", "epoch 1\n")
