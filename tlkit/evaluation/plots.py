"""The plots of a run. They use no pyplot, hence no display and no state between calls."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlkit.errors import ConfigError

TRAIN, VALIDATION = "#4878a8", "#d1603d"
MAX_NUMBERED = 20  # classes up to which the confusion matrix shows its numbers
MAX_NAMED = 60  # classes up to which it shows every name


class Plot(Figure):
    """A Matplotlib figure that shows itself in a notebook without pyplot."""

    def __init__(
        self, width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained"
    ) -> None:
        """Sizes are in inches. The layout `compressed` is for panels that must be square."""
        super().__init__(figsize=(width, height), dpi=110, layout=layout, facecolor="white")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def plot_history(history: pd.DataFrame, metric: str | None = None) -> Plot:
    """Loss and a metric per epoch, over all stages; a line marks where a stage begins.

    Args:
        history: One row per epoch, with `stage`, `loss`, and where they were computed `val_loss`, `<metric>`
            and `val_<metric>`.
        metric: The metric's column. None: the one that tells the most of a tagger (`word_f1`), else the first
            column that is a metric.

    Raises:
        ConfigError: The history has no rows, or no such metric.
    """
    if history.empty:
        raise ConfigError("There is nothing to plot: the history has no epochs.")
    metrics = [
        column for column in history if column not in _NO_METRIC and not str(column).startswith("val_")
    ]
    if metric is not None and metric not in metrics:
        raise ConfigError(f"Unknown metric {metric!r}. In this history: {', '.join(map(str, metrics))}.")
    best = [name for name in _TELLING if name in metrics] or metrics
    shown = ["loss", *([metric] if metric else best[:1])]
    figure = Plot(5.2 * len(shown), 3.6)
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _plot_curve(axes, history, name)
    return figure


def plot_confusion_matrix(matrix: pd.DataFrame) -> Plot:
    """The confusion matrix as a picture: numbers are counts, colours are shares of the true class.

    With more than 20 classes the numbers are left out, with more than 60 most names, too.
    """
    counts = matrix.to_numpy(dtype=np.float64)
    names = [_short(str(name)) for name in matrix.index]
    n = len(names)
    longest = max((max(map(len, name.split("\n"))) for name in names), default=0)
    side = float(np.clip(0.55 * n, 2.6, 9.0))
    figure = Plot(
        side + 0.075 * longest + 1.6, side + 0.075 * (longest if _must_turn(names) else 1) + 1.0, "compressed"
    )
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046, pad=0.03)
    _name_classes(axes, names)
    if n <= MAX_NUMBERED:
        size = 9 if n <= 12 else 7
        for row, column in np.ndindex(n, n):
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.55 else "black"
                text = f"{counts[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{right:.1%} of {counts.sum():.0f} right", fontsize=10)
    return figure


def plot_regression(targets: np.ndarray, predicted: np.ndarray, names: Sequence[str] = ()) -> Plot:
    """Predicted against true values, one panel per value; on the diagonal they are equal.

    `targets` and `predicted` are (N,) or (N, values).
    """
    targets = np.asarray(targets, np.float64).reshape(len(targets), -1)
    predicted = np.asarray(predicted, np.float64).reshape(targets.shape)
    k = targets.shape[1]
    columns = 2 if k == 4 else min(k, 3)
    rows = -(-k // columns)
    figure = Plot(4.2 * columns, 4.0 * rows, "compressed")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for index, axes in enumerate(panels):
        if index >= k:
            axes.remove()
            continue
        _plot_values(axes, targets[:, index], predicted[:, index])
        if index < len(names):
            axes.set_title(_short(names[index]), fontsize=10)
    return figure


# Shown before others: nine of ten words are outside of any entity, so that accuracy shows little.
_TELLING = ("word_f1",)
_NO_METRIC = ("stage", "epoch", "loss", "learning_rate", "lr", "seconds")


def _plot_curve(axes: Axes, history: pd.DataFrame, name: str) -> None:
    epochs = np.arange(1, len(history) + 1)
    # Points only where there are few of them; one epoch would be invisible as a line.
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(epochs) <= 30 else {}
    for column, label, colour in ((name, "train", TRAIN), (f"val_{name}", "validation", VALIDATION)):
        if column in history:
            axes.plot(epochs, history[column], label=label, color=colour, **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name.replace("_", " "))
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    _mark_stages(axes, history)


def _mark_stages(axes: Axes, history: pd.DataFrame) -> None:
    if "stage" not in history:
        return
    stages = history["stage"].astype(str).to_numpy()
    starts = [k for k in range(len(stages)) if k == 0 or stages[k] != stages[k - 1]]
    lengths = np.diff([*starts, len(stages)])
    # About 50 characters fit side by side; a name that is longer than its stage stands upright.
    upright = any(
        50 * length / len(stages) < len(stages[k]) + 1 for k, length in zip(starts, lengths, strict=True)
    )
    for k in starts:
        if k:
            axes.axvline(k + 0.5, color="0.6", linewidth=0.9, linestyle="--")
        axes.annotate(
            _short(stages[k], lines=1),
            (k + 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            va="bottom",
            rotation=90 if upright else 0,
            fontsize=8,
            color="0.35",
        )


def _name_classes(axes: Axes, names: list[str]) -> None:
    n = len(names)
    places = np.arange(n) if n <= MAX_NAMED else np.linspace(0, n - 1, 30).round().astype(int)
    shown = [names[place] for place in places]
    size = float(np.clip(9 - (n - 20) * 0.1, 5, 9))
    turned = _must_turn(names)
    axes.set_xticks(places, shown, fontsize=size, rotation=90 if turned else 0)
    axes.set_yticks(places, shown, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def _must_turn(names: list[str]) -> bool:
    return len(names) > 12 or any(len(line) > 7 for name in names for line in name.split("\n"))


def _short(name: str, width: int = 18, lines: int = 2) -> str:
    """A name on a few short lines, cut where it is longer still."""
    if len(name) <= width:
        return name
    parts = textwrap.wrap(re.sub(r"_+", " ", name), width) or [name[:width]]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], f"{parts[lines - 1][: width - 1]}…"]
    return "\n".join(parts)


def _plot_values(axes: Axes, targets: np.ndarray, predicted: np.ndarray) -> None:
    both = np.concatenate([targets, predicted])
    low, high = float(both.min()), float(both.max())
    margin = 0.05 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="0.6", linewidth=0.9, linestyle="--", zorder=1)
    axes.scatter(targets, predicted, s=14, alpha=0.5, color=TRAIN, linewidths=0, zorder=2)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
