from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tlkit.cli.output import as_text, print_json, print_table, to_plain
from tlkit.config import RunConfig


@dataclass(frozen=True)
class Pair:
    path: Path
    values: tuple[float, ...]


def test_json_holds_only_what_json_has(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(
        {"pair": Pair(Path("a/b"), (1.5, float("nan"))), "array": np.arange(2), "number": np.float32(0.5)}
    )
    assert json.loads(capsys.readouterr().out) == {
        "pair": {"path": "a/b", "values": [1.5, None]},
        "array": [0, 1],
        "number": 0.5,
    }


def test_an_infinite_numpy_number_becomes_null() -> None:
    assert to_plain({"loss": np.float64("inf"), 1: True}) == {"loss": None, "1": True}


def test_a_config_is_plain_values() -> None:
    assert to_plain(RunConfig())["training"]["optimizer"] == RunConfig().training.optimizer


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        to_plain(object())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.88415, "0.8841"),
        (1e-4, "0.0001"),
        (0.0, "0"),
        (2.0, "2"),
        (["a", 1], "a, 1"),
    ],
)
def test_values_as_people_read_them(value: object, text: str) -> None:
    assert as_text(value) == text


def test_a_table_in_a_pipe_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "count"], [["a", 1], ["long name", None]])
    assert capsys.readouterr().out == "name       count\na          1\nlong name  –\n"


def test_a_table_in_a_terminal_is_drawn_and_shows_text_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(["name"], [["[red]not markup[/red]"]])
    out = capsys.readouterr().out
    assert "[red]not markup[/red]" in out
    assert "─" in out or "━" in out
