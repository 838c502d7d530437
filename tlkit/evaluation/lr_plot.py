"""The picture of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tlkit.evaluation.plots import TRAIN, VALIDATION, Plot

MARKERS = {"steep": "o", "valley": "s", "minimum": "^"}
HEADROOM = 0.3  # share of the range between the best and the first loss


def plot_rates(curve: pd.DataFrame, suggestions: Mapping[str, float | None], title: str = "") -> Plot:
    """Smoothed loss against the learning rate, a line for each seed, and the suggestions on it.

    Args:
        curve: A row for each seed and step: `seed`, `learning_rate`, `loss`, `smoothed`.
        suggestions: Rate by its name; None is left out.
        title: Above the picture.
    """
    figure = Plot(6.4, 4.0)
    axes = figure.subplots()
    seeds = list(curve.groupby("seed"))
    for place, (_, rows) in enumerate(seeds):
        axes.plot(rows["learning_rate"], rows["loss"], color=TRAIN, alpha=0.25 / len(seeds), linewidth=0.8)
        label = ("smoothed loss" + (", one line per seed" if len(seeds) > 1 else "")) if not place else None
        axes.plot(rows["learning_rate"], rows["smoothed"], color=TRAIN, alpha=0.9, linewidth=1.6, label=label)
    middle = curve.groupby("learning_rate")["smoothed"].median()
    for name, rate in suggestions.items():
        if rate is not None:
            height = float(np.interp(np.log(rate), np.log(middle.index), middle))
            axes.plot(
                rate,
                height,
                MARKERS.get(name, "o"),
                color=VALIDATION,
                ms=7,
                zorder=3,
                label=f"{name} {rate:.1e}",
            )
    # The end of the curve, where it diverges, would leave no room for what matters.
    finite = curve["smoothed"][np.isfinite(curve["smoothed"])]
    firsts = curve.groupby("seed")["smoothed"].first()
    low, high = float(finite.min()), max(float(firsts.max()), float(finite.median()))
    margin = HEADROOM * max(high - low, 1e-3 * abs(high), 1e-9)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=9)
    axes.set_title(title, fontsize=10)
    return figure
