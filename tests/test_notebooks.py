"""The notebooks run from top to bottom, on a slice of their data."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbclient
import nbformat
import pandas as pd
import pytest

import tlkit
from tlkit import zoo

from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PER_LABEL = 15


@pytest.fixture
def elpv_slice(tmp_path: Path) -> Path:
    """A table of 60 solar cells, 15 of each defect probability, with the label that the sample gives them."""
    folder = zoo.fetch_sample(zoo.get_sample("elpv"))
    cells = pd.read_csv(folder / "labels.csv", sep=r"\s+", names=["path", "probability", "type"])
    some = cells.groupby("probability", group_keys=False).head(PER_LABEL)
    label = some["probability"].gt(0.5).map({False: "functional", True: "defective"})
    some.assign(path=str(folder) + "/" + some["path"], label=label).to_csv(
        tmp_path / "cells.csv", index=False
    )
    return tmp_path / "cells.csv"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.real
def test_the_notebook_on_images_runs(
    elpv_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"DATA": str(elpv_slice), "EPOCHS": 1, "IMAGE_SIZE": 64}
    cells = run_notebook(ROOT / "notebooks" / "01_finetune_images.ipynb", settings, tmp_path, monkeypatch)

    for name in ("grid", "plot", "confusion", "worst"):
        assert "image/png" in kinds_of_output(cells[name]), name
    for name in ("load-data", "finetune", "metrics", "history", "stages", "moved"):
        assert "text/html" in kinds_of_output(cells[name]), name
    run = tlkit.load(tmp_path / "runs" / "notebook")
    assert run.stages["frozen_unchanged"].all()
    assert list(run.history["epoch"]) == [1] * len(run.stages)
    assert (run.path / "saved_model" / "1" / "saved_model.pb").is_file()
    assert run.classes is not None
    label, _, difference = text_of(cells["serve"]).strip().splitlines()
    assert label.removeprefix("label: ") in run.classes
    assert float(difference.rpartition(" ")[2]) <= 1e-5
    for name, cell in cells.items():
        assert not re.search(r"Warning|\x1b", text_of(cell)), name


@pytest.mark.real
@pytest.mark.slow
def test_the_notebook_on_texts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = zoo.fetch_sample(zoo.get_sample("bbc_news"))
    for path in sorted(folder.glob("*/00*.txt")) + sorted(folder.glob("*/01*.txt")):
        (tmp_path / "news" / path.parent.name).mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="latin-1").encode()
        (tmp_path / "news" / path.parent.name / path.name).write_bytes(text)
    settings = {"DATA": str(tmp_path / "news"), "EPOCHS": 1}
    cells = run_notebook(ROOT / "notebooks" / "02_finetune_text.ipynb", settings, tmp_path, monkeypatch)

    for name in ("plot", "confusion"):
        assert "image/png" in kinds_of_output(cells[name]), name
    for name in ("finetune", "manifest", "metrics", "stages", "worst", "predict"):
        assert "text/html" in kinds_of_output(cells[name]), name
    assert float(text_of(cells["serve"]).strip().rpartition(" ")[2]) <= 1e-5
    for name, cell in cells.items():
        assert not re.search(r"Warning|\x1b", text_of(cell)), name


def run_notebook(
    path: Path, settings: dict[str, object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, nbformat.NotebookNode]:
    """Execute a notebook in `folder` with other settings; its cells by their ids.

    Raises CellExecutionError with the cell's traceback where one fails.
    """
    package = str(Path(tlkit.__file__).parents[1])  # the kernel uses the same tlkit as this test
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    notebook = nbformat.read(path, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    lines = [f"{name} = {value!r}" for name, value in settings.items()]
    for name in settings:
        assert f"{name} = " in parameters.source, f"the notebook has no parameter {name}"
    parameters.source = "\n".join([parameters.source, *lines])
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    if keep := os.environ.get("TLKIT_TEST_NOTEBOOKS"):
        nbformat.write(notebook, Path(keep) / path.name)
    return {cell.id: cell for cell in notebook.cells}


def kinds_of_output(cell: nbformat.NotebookNode) -> set[str]:
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a code cell printed, and the text form of what it showed."""
    return "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in cell.get("outputs", [])
    )
