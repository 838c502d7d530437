"""A run on a SavedModel that does more than compute, where nobody has said yet that it is trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import tlkit
from tlkit.cli import main
from tlkit.errors import FetchError

from conftest import make_pictures
from saved_models import save_with_operation

SETTINGS: dict[str, Any] = {"batch_size": 12, "epochs": 1, "plan": "head", "augment": "none", "export": False}
REFUSED = "was refused: it holds ReadFile, .*--trust"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "photos", size=16)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SavedModel that reads a file whenever it is called."""
    folder = tmp_path_factory.mktemp("reader")
    file = folder / "file"
    file.write_text("x")
    return f"hub:{save_with_operation(folder / 'reader', lambda: tf.io.read_file(str(file)), size=16)}"


@pytest.fixture(scope="module")
def run_folder(photos: Path, reader: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        out = tmp_path_factory.mktemp("runs") / "run"
        return tlkit.finetune(photos, reader, trust=True, out=out, **SETTINGS).path


def rank(run: Path, photos: Path, out: Path, reader: str, **trust: Any) -> Any:
    return tlkit.rank_backbones(photos, reader, **trust)


# How each function is called in a process that has not loaded the SavedModel before.
CALLS: dict[str, Callable[..., Any]] = {
    "load": lambda run, photos, out, reader, **trust: tlkit.load(run, **trust).predict(photos),
    "predict": lambda run, photos, out, reader, **trust: tlkit.predict(run, photos, **trust),
    "predict with a run": lambda run, photos, out, reader, **trust: tlkit.predict(
        tlkit.load(run), photos, **trust
    ),
    "evaluate": lambda run, photos, out, reader, **trust: tlkit.evaluate(run, **trust),
    "export": lambda run, photos, out, reader, **trust: tlkit.export(run, out, **trust),
    "finetune": lambda run, photos, out, reader, **trust: tlkit.finetune(
        photos, run, out=out, **SETTINGS, **trust
    ),
    "finetune with a run": lambda run, photos, out, reader, **trust: tlkit.finetune(
        photos, tlkit.load(run, **trust), out=out, **SETTINGS
    ),
    "rank_backbones": rank,
}


LONGER = ("rank_backbones",)  # it has a process of its own


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONGER else []) for name in CALLS]
)
def test_it_is_refused_until_somebody_says_that_it_is_trusted(name, run_folder, photos, reader, tmp_path):
    given = run_folder, photos, tmp_path / "out", reader
    with pytest.raises(FetchError, match=REFUSED):
        CALLS[name](*given)
    assert not (tmp_path / "out").exists()
    assert CALLS[name](*given, trust=True)


@pytest.mark.parametrize(
    "command", ["predict", "evaluate", pytest.param("export", marks=pytest.mark.slow), "finetune"]
)
def test_so_it_is_in_the_shell(command, run_folder, photos, tmp_path, capsys):
    arguments = {
        "predict": [run_folder, photos],
        "evaluate": [run_folder],
        "export": [run_folder, "--to", tmp_path / "out"],
        "finetune": ["--data", photos, "--backbone", run_folder, "--out", tmp_path / "out", "--plan", "head",
                     "--epochs", 1, "export=false"],
    }  # fmt: skip
    words = [command, *map(str, arguments[command]), "--json"]
    assert main(words) == 2
    assert "--trust" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--trust"]) == 0
    assert json.loads(capsys.readouterr().out)
