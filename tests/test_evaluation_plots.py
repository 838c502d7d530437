"""Plots draw what they are given, headless, and leave no state behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tlkit.errors import ConfigError
from tlkit.evaluation import Plot, confusion_matrix, plot_confusion_matrix, plot_history, plot_regression


def make_history(*stages: tuple[str, int]) -> pd.DataFrame:
    names = [name for name, epochs in stages for _ in range(epochs)]
    values = np.linspace(1.0, 0.5, len(names))
    return pd.DataFrame(
        {
            "stage": names,
            "epoch": 1,
            "loss": values,
            "accuracy": 1 - values / 2,
            "val_loss": values,
            "val_accuracy": 1 - values / 2,
            "learning_rate": 1e-3,
        }
    )


def texts(plot: Plot) -> list[str]:
    return [text.get_text() for axes in plot.axes for text in axes.texts]


def is_png(plot: Plot) -> bool:
    picture = plot._repr_png_()
    return picture.startswith(b"\x89PNG") and len(picture) > 5000


def test_the_history_shows_loss_and_metric_of_all_stages_with_boundaries() -> None:
    plot = plot_history(make_history(("head", 3), ("top", 4)))
    assert [axes.get_ylabel() for axes in plot.axes] == ["loss", "accuracy"]
    for axes in plot.axes:
        train, validation, boundary = axes.lines
        assert list(train.get_xdata()) == list(validation.get_xdata()) == [1, 2, 3, 4, 5, 6, 7]
        assert list(boundary.get_xdata()) == [3.5, 3.5]
    assert texts(plot) == ["head", "top"] * 2
    assert is_png(plot)


def test_one_epoch_and_no_validation_are_drawn() -> None:
    history = make_history(("head", 1)).drop(columns=["val_loss", "val_accuracy"])
    plot = plot_history(history)
    (train,) = plot.axes[0].lines
    assert train.get_marker() == "o"
    assert is_png(plot)


def test_the_metric_can_be_chosen() -> None:
    history = make_history(("head", 2)).assign(mae=1.0)
    assert plot_history(history, metric="mae").axes[1].get_ylabel() == "mae"
    with pytest.raises(ConfigError, match=r"Unknown metric 'f1'\. In this history: accuracy, mae"):
        plot_history(history, metric="f1")
    with pytest.raises(ConfigError, match="no epochs"):
        plot_history(history.iloc[:0])


def test_of_a_tagger_the_f1_over_words_is_shown() -> None:
    history = make_history(("full", 3)).assign(word_f1=0.5, val_word_f1=0.4)
    assert [axes.get_ylabel() for axes in plot_history(history).axes] == ["loss", "word f1"]
    assert plot_history(history, metric="accuracy").axes[1].get_ylabel() == "accuracy"


def test_the_confusion_matrix_is_numbered_while_it_is_small() -> None:
    few = plot_confusion_matrix(confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), ["a", "b" * 90]))
    assert texts(few) == ["1", "1", "1"]
    assert is_png(few)
    many = confusion_matrix(np.arange(100), np.arange(100), [f"class {k}" for k in range(100)])
    plot = plot_confusion_matrix(many)
    assert texts(plot) == []
    assert len(plot.axes[0].get_xticks()) == 30
    assert is_png(plot)


def test_a_regression_has_a_panel_per_value() -> None:
    targets = np.random.default_rng(0).normal(size=(20, 2))
    plot = plot_regression(targets, targets + 1, ["x", "y"])
    assert [axes.get_title() for axes in plot.axes] == ["x", "y"]
    assert is_png(plot)
    assert is_png(plot_regression(np.array([3.0]), np.array([3.0])))


def test_plots_do_not_load_pyplot() -> None:
    code = "import sys, tlkit.evaluation; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
