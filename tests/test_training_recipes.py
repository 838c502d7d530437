"""Whole runs with weights of labels, mixed pictures and updates of several batches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

import tlkit
from tlkit.config import Columns, DataConfig
from tlkit.data.table import read_frame
from tlkit.data.text_table import read_text_frame
from tlkit.errors import ConfigError, DataError

from conftest import make_pictures


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """36 pictures with two labels, of which one is rare, and weights."""
    folder = make_pictures(tmp_path_factory.mktemp("data") / "photos")
    paths = sorted(folder.rglob("*.png"))
    frame = pd.DataFrame({"path": [str(path) for path in paths]})
    frame["label"] = [
        "|".join(["warm"] * (path.parent.name == "red") + ["coloured"] * (int(path.stem) > 2))
        for path in paths
    ]
    frame["weight"] = [0.5 + number % 3 for number in range(len(frame))]
    file = folder.parent / "labels.csv"
    frame.to_csv(file, index=False)
    return file


def settings(**training):
    return {
        "task": "multilabel",
        "backbone": "image_cnn",
        "image_size": 32,
        "batch_size": 6,
        "epochs": 2,
        "plan": "full",
        "head": {"class_weight": "balanced", "loss": "focal", "focal_alpha": 0.4},
        "training": training,
        "export": False,
    }


def test_a_run_of_several_labels_weighs_mixes_and_accumulates(table, tmp_path):
    options = settings(accumulate=2, mix={"mixup": 0.2, "cutmix": 1.0})
    config = {"data": {"source": str(table), "columns": {"weight": "weight"}}}
    run = tlkit.finetune(config=config, out=tmp_path / "run", **options)
    written = yaml.safe_load((run.path / "config.yaml").read_text())
    weights = written["head"]["class_weight"]
    assert weights["warm"] > 1 > weights["coloured"] > 0
    assert written["training"]["accumulate"] == 2
    assert len(run.history) == 2
    # The weights are numbers in the run's config, so that both have the same loss.
    assert tlkit.evaluate(run)["loss"] == pytest.approx(run.result.metrics["test"]["loss"], rel=1e-4)


def test_an_accumulation_that_is_longer_than_an_epoch_is_refused_before_training(table, tmp_path):
    with pytest.raises(ConfigError, match="of 50 batches, but an epoch of .* has 5. Use at most 5"):
        tlkit.finetune(table, out=tmp_path / "run", **settings(accumulate=50))


def test_a_table_brings_weights_of_its_examples(table):
    spec = DataConfig(columns=Columns(weight="weight"))
    frame = pd.read_csv(table)
    np.testing.assert_array_equal(read_frame(frame, spec).weights, frame["weight"])
    texts = pd.DataFrame({"text": ["a b", "c d"], "label": ["x", "y"], "weight": ["1", "2.5"]})
    np.testing.assert_array_equal(read_text_frame(texts, spec, "classify").weights, [1.0, 2.5])
    assert read_text_frame(texts, DataConfig(), "classify").weights is None


@pytest.mark.parametrize("wrong", ["", "much", "-1", "nan", "inf"])
def test_weights_that_are_none_are_refused_with_their_row(wrong):
    texts = pd.DataFrame({"text": ["a b", "c d"], "label": ["x", "y"], "weight": ["1", wrong]})
    with pytest.raises(DataError, match=f"numbers that are at least 0, received row 2: '{wrong}'"):
        read_text_frame(texts, DataConfig(columns=Columns(weight="weight")), "classify")
    with pytest.raises(DataError, match=r"no column 'wieght' \(data.columns.weight\). Did you mean 'weight'"):
        read_text_frame(texts, DataConfig(columns=Columns(weight="wieght")), "classify")
