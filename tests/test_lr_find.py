"""lr-find from the shell and in Python, on whole configs."""

from __future__ import annotations

import json

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorflow.python.framework import config
from test_lr_range import draws

import tlkit
from tlkit.cli import main
from tlkit.errors import ConfigError, UnknownNameError
from tlkit.training.determinism import determinism_unchanged
from tlkit.workflows.lr_find import RateSearch

from conftest import make_pictures

SMALL = {"backbone": "image_cnn", "image_size": 32, "architecture": {"layers": 2, "width": 4}}
SHELL = ["--backbone", "image_cnn", "--image-size", "32", "architecture.layers=2", "architecture.width=4"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "photos")


def test_python_gives_the_curve_the_suggestions_and_a_picture_and_draws_nothing(photos, tmp_path):
    for_both = (keras.utils.set_random_seed, tf.random.get_global_generator().reset_from_seed)
    for seed in for_both:
        seed(11)
    expected = draws()
    for seed in for_both:
        seed(11)
    found = tlkit.lr_find(photos, plan="head_then_all", seeds=2, steps=12, **SMALL)
    assert draws() == expected
    assert found.stage == "head"
    assert list(found.curve) == ["seed", "step", "learning_rate", "loss", "smoothed"]
    assert found.curve.groupby("seed").size().to_dict() == {0: 12, 1: 12}
    assert list(found.by_seed["seed"]) == [0, 1]
    found.save_plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*partial*"))


def test_the_same_config_gives_the_same_curve(photos):
    first, second = (tlkit.lr_find(photos, plan="head", steps=10, **SMALL) for _ in range(2))
    pd.testing.assert_frame_equal(first.curve, second.curve)


@pytest.mark.parametrize("was", [False, True])
def test_operations_are_as_deterministic_as_before(was, photos):
    with determinism_unchanged():
        (config.enable_op_determinism if was else config.disable_op_determinism)()
        tlkit.lr_find(photos, plan="head", steps=10, deterministic=True, **SMALL)
        assert config.is_op_determinism_enabled() == was


def test_a_run_is_tested_from_its_own_weights_and_keeps_them(photos, tmp_path):
    run = tlkit.finetune(photos, plan="full", epochs=1, export=False, out=tmp_path / "run", **SMALL)
    before = [weight.numpy().copy() for weight in run.model.weights]
    found = run.lr_find(steps=10, lowest=1e-12, highest=1e-11)
    for was, weight in zip(before, run.model.weights, strict=True):
        np.testing.assert_array_equal(was, weight.numpy())
    assert found.stage == "all"
    fresh = tlkit.lr_find(photos, plan="full", steps=10, lowest=1e-12, highest=1e-11, **SMALL)
    assert abs(found.curve["loss"][0] - fresh.curve["loss"][0]) > 1e-4


def test_the_median_of_several_seeds_is_on_the_scale_of_rates():
    rows = [
        {"seed": seed, "steep": rate, "valley": rate, "minimum": rate}
        for seed, rate in enumerate([1e-4, 1e-2])
    ]
    from tlkit.workflows.lr_find import _median

    assert _median([row["steep"] for row in rows]) == pytest.approx(1e-3)
    assert _median([]) is None


def test_the_shell_prints_a_table_or_json_and_draws(photos, tmp_path, capfd):
    picture = tmp_path / "rates.png"
    command = ["lr-find", "--data", str(photos), *SHELL, "--plan", "head_then_all", "--stage", "all"]
    assert main([*command, "--steps", "12", "--out", str(picture), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["stage"] == "all"
    assert len(document["curve"]) == 12
    assert set(document["suggestions"]) == {"steep", "valley", "minimum"}
    assert any("were not trained" in note for note in document["notes"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--steps", "10"]) == 0
    assert "what it is" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (["--steps", "3"], "steps should be at least 10, received 3"),
        (["--seeds", "0"], "seeds should be at least 1, received 0"),
        (["--lowest", "1", "--highest", "0.1"], "0 < lowest < highest, received 1 and 0.1"),
        (["--highest", "nan"], "received 1e-07 and nan"),
        (["--out", "rates.txt"], "should end in .png, .svg, .pdf, received 'rates.txt'"),
        (["--stage", "hed", "plan=head"], "Unknown stage 'hed'. Did you mean 'head'?"),
    ],
)
def test_bad_input_is_one_line(photos, capfd, added, said):
    assert main(["lr-find", "--data", str(photos), *SHELL, *added]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("Error: ")
    assert said in error


def test_no_data_is_one_line(capfd):
    assert main(["lr-find"]) == 2
    assert "No data. Add --data" in capfd.readouterr().err


def test_an_unknown_stage_and_parts_from_python_are_refused(photos, tmp_path):
    with pytest.raises(UnknownNameError, match="Unknown stage 'x'"):
        tlkit.lr_find(photos, plan="head", stage="x", **SMALL)
    head = keras.layers.GlobalAveragePooling2D
    run = tlkit.finetune(
        photos,
        plan="full",
        epochs=1,
        export=False,
        out=tmp_path / "run",
        head=lambda x: keras.layers.Dense(3)(head()(x)),
        **SMALL,
    )
    with pytest.raises(ConfigError, match="The head of .* came from Python"):
        run.lr_find()


def test_a_note_says_where_the_range_ends_too_soon():
    from tlkit.workflows.lr_find import _notes

    curve = pd.DataFrame({"smoothed": [2.0, 1.5, 1.0]})
    found = pd.DataFrame({"seed": [0], "valley": [0.1]})
    (note,) = _notes([curve], found, 0.1, untrained=False, stage="head")
    assert "still falls at the last rate, 0.1" in note
    (note,) = _notes([curve], pd.DataFrame({"valley": [0.1, np.nan]}), 0.1, untrained=False, stage="head")
    assert "for 1 of 2 seeds" in note
    assert (
        RateSearch("head", curve, found, {"steep": None, "valley": None, "minimum": None}, ()).suggestion
        is None
    )
