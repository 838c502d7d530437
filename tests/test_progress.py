from __future__ import annotations

from typing import Any

import nbclient
import nbformat
import pytest

from tlkit.progress import byte_bar, make_console, spinner, track


def test_progress_leaves_nothing_behind_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with spinner("Waiting"):
        assert list(track(range(3), "Counting")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_a_line_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    make_console().print("epoch 1")
    assert capfd.readouterr() == ("", "epoch 1\n")


def test_a_notebook_shows_a_line_that_moves_and_goes_away() -> None:
    cell = nbformat.v4.new_code_cell(
        "import time\nfrom tlkit.progress import track\nfor _ in track(range(5), 'Counting'): time.sleep(0.3)"
    )
    seen: list[str] = []

    class Client(nbclient.NotebookClient):
        def process_message(self, message: Any, *rest: Any) -> Any:
            if message["msg_type"] == "update_display_data":
                seen.append(message["content"]["data"]["text/plain"])
            return super().process_message(message, *rest)

    Client(nbformat.v4.new_notebook(cells=[cell]), timeout=60).execute()
    assert any("Counting" in line and "2/5" in line for line in seen)
    assert seen[-1] == ""
    assert not any("\x1b" in line for line in seen)


def test_bytes_leave_nothing_behind_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with byte_bar("Downloading", None) as report:
        report(10, None)
        report(20, 100)
    assert capfd.readouterr() == ("", "")
