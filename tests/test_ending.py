"""What is kept of a run that somebody ends, and what it says."""

from __future__ import annotations

import importlib

import pytest
from test_faults import InStage, finetune

from tlkit.errors import Interrupted
from tlkit.results import RunFolder

from conftest import make_pictures


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


@pytest.mark.parametrize(("stage", "kept"), [(1, False), (2, True)])
def test_ctrl_c_keeps_a_model_only_where_an_epoch_has_ended(stage, kept, photos, tmp_path):
    def press():
        raise KeyboardInterrupt

    out = tmp_path / "run"
    go_on = f"go on with: tlkit.finetune(out='{out}', resume=True, …) and the same callbacks"
    best = f". The best model so far is in {out}; use it with: tlkit predict {out}, or"
    with pytest.raises(Interrupted) as caught:
        finetune(photos, out, callback=InStage(press, stage, epoch=1))
    assert str(caught.value) == f"Interrupted{best if kept else ';'} {go_on}"
    assert RunFolder(out).model.exists() == kept
    assert RunFolder(out).read_state()["status"] == "interrupted"


def test_ctrl_c_after_training_names_the_model_that_is_written(photos, tmp_path, monkeypatch):
    def press(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("tlkit.workflows.finetune"), "save_outputs", press)
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"The best model so far is in {out}; .* the same callbacks$"):
        finetune(photos, out, plan="head", epochs=1)
    assert RunFolder(out).model.exists()
