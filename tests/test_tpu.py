"""What `strategy: tpu` asks of batches, steps and settings; on a CPU, as no TPU was at hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from test_resume import assert_same, finish, make

from tlkit.config import load_config
from tlkit.errors import ConfigError
from tlkit.plans import Stage
from tlkit.training import compiling, require_compilable, train_stages, trainable
from tlkit.training.compiling import steps_at_once
from tlkit.training.compute import candidates
from tlkit.training.compute.candidates import list_candidates
from tlkit.training.compute.precision import Setting
from tlkit.training.pipelines import training_pipeline, validation_pipeline
from tlkit.training.trainable import Place

from test_training import make_run, values

HEAD, ALL = Stage("head", "head", 2, 0.01), Stage("all", "all", 2, 0.003)


@pytest.fixture
def as_on_tpu(monkeypatch):
    for module in (trainable, candidates):
        monkeypatch.setattr(module, "device_kind", lambda strategy: "TPU")


class Watch(keras.callbacks.Callback):
    """How many steps there are at once, and after which ones Python is asked."""

    def __init__(self):
        super().__init__()
        self.ends = []
        self.at_once = set()

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(batch)
        self.at_once.add(self.model.steps_per_execution)


def test_a_tpu_multiplies_in_bfloat16_unless_told_otherwise():
    assert load_config({"strategy": "tpu"}).config.precision == "mixed_bfloat16"
    assert load_config({"strategy": "tpu", "precision": "float32"}).config.precision == "float32"
    assert load_config(options={"strategy": "tpu"}).config.precision == "mixed_bfloat16"
    assert load_config({"strategy": "mirrored"}).config.precision == "float32"


@pytest.mark.usefixtures("as_on_tpu")
def test_nothing_is_timed_on_a_tpu():
    run = replace(make_run(), precision="auto", xla="auto")
    found = list_candidates(run, None, reads_features=False)
    assert found.settings == (Setting("mixed_bfloat16"),)
    assert found.left_out == ("a TPU multiplies in bfloat16", "a TPU compiles with XLA always")


@pytest.mark.parametrize("key", ["accumulate", "batch_tokens"])
def test_batches_of_many_sizes_are_refused_on_a_tpu_alone(key, request):
    run = make_run(**{key: 16})
    require_compilable(run)
    request.getfixturevalue("as_on_tpu")
    with pytest.raises(ConfigError, match=f"strategy: tpu compiles for every shape, and training.{key}"):
        require_compilable(run)


@pytest.mark.parametrize(("steps", "at_once"), [(64, 32), (40, 20), (37, 1), (1, 1), (20, 20)])
def test_steps_at_once_divide_an_epoch(steps, at_once, request):
    run = make_run(n=steps, batch_size=1)
    assert steps_at_once(run, ALL) == 1
    request.getfixturevalue("as_on_tpu")
    assert steps_at_once(run, ALL) == at_once
    assert steps_at_once(run, replace(ALL, auto_freeze=50.0)) == 1


@pytest.mark.usefixtures("as_on_tpu")
def test_batches_on_a_tpu_are_of_one_size():
    run = make_run(n=37, n_validation=13, batch_size=8)
    for pipeline, count in (
        (training_pipeline(run, ALL, Place(0, 1, 0)), 2 * 5),
        (validation_pipeline(run), 2),
    ):
        assert pipeline.element_spec[0].shape.as_list() == [8, 16, 16, 3]
        assert [len(targets) for _, targets in pipeline] == [8] * count


def test_many_steps_at_once_are_the_same_steps(tmp_path, request):
    expected, run = make_run(n=40, n_validation=16), make_run(n=40, n_validation=16)
    watch, many = Watch(), Watch()
    by_one = train_stages(expected, [HEAD, ALL], tmp_path / "one", [watch]).history
    request.getfixturevalue("as_on_tpu")
    at_once = train_stages(run, [HEAD, ALL], tmp_path / "many", [many]).history
    assert (watch.at_once, many.at_once) == ({1}, {5})
    assert many.ends == [4] * 4
    for column in by_one.columns.difference(["stage"]):
        np.testing.assert_allclose(at_once[column], by_one[column], rtol=1e-5, err_msg=column)
    for path, value in values(run.model).items():
        np.testing.assert_allclose(value, values(expected.model)[path], atol=1e-6, err_msg=path)


@pytest.mark.usefixtures("as_on_tpu")
def test_a_run_goes_on_between_the_steps_that_run_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "MOST_AT_ONCE", 2)

    def six_steps():
        return make(n=48)

    expected = finish(tmp_path / "whole", [HEAD, ALL], six_steps)
    found = finish(tmp_path / "killed", [HEAD, ALL], six_steps, stops=[3, 10])
    assert_same(found, expected)
    assert [place["step"] for place in found[1].resumed] == [4, 4]


def test_no_tpu_is_told():
    ask = "from tlkit.devices import make_strategy; make_strategy('tpu')"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert "ConfigError: strategy: tpu, but no TPU answers" in done.stderr
