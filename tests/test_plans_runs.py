"""Plans and settings of the optimizer in whole runs."""

from __future__ import annotations

import numpy as np
import pytest

import tlkit
from tlkit.errors import ConfigError

from conftest import make_pictures

SETTINGS = {
    "backbone": "image_cnn",
    "image_size": 32,
    "batch_size": 12,
    "architecture": {"layers": 2, "width": 4},
    "export": False,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


def test_a_run_with_rates_per_group_and_averages_ends_as_its_model_is_loaded(photos, tmp_path):
    training = {"ema": 0.5, "learning_rates": {"head": 0.01}, "clip": {"by": "value", "limit": 0.1}}
    run = tlkit.finetune(photos, plan="ulmfit", epochs=1, training=training, out=tmp_path / "run", **SETTINGS)
    assert [stage.name for stage in run.result.stages] == ["head", "top1", "all"]
    loaded = tlkit.load(run.path)
    assert loaded.config.plan == run.config.plan
    assert loaded.config.training == run.config.training
    assert loaded.evaluate()["accuracy"] == pytest.approx(run.metrics["accuracy"])
    for ours, theirs in zip(loaded.model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_rate_for_an_unknown_group_is_refused_before_anything_is_written(photos, tmp_path):
    training = {"learning_rates": {"layr1": 0.1}}
    with pytest.raises(ConfigError, match="no layer group 'layr1'. Did you mean 'layer1'"):
        tlkit.finetune(photos, epochs=1, training=training, out=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()
