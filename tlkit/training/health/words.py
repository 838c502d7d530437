"""What a stage's gradients and curves say, in words, with the setting to change.

The limits are rules of thumb, set wide: what is said should be worth reading. An update of about a thousandth
of the weights is customary for a step; what is far from that, for groups that are neither new nor at the
beginning or end of a schedule, is pointed out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from tlkit.plans import HEAD, Stage

VANISHED = 1e-5  # of the largest norm among the groups
EXPLODED = 1e3
GROWN = 100.0  # times the first epoch's
LARGE_UPDATE = 0.1
SMALL_UPDATE = 1e-7
DEAD = 0.8
RISE = 1.1  # times the best
STILL_FALLING = 0.1  # share of the loss, in the last epoch


def explain_health(table: pd.DataFrame, history: pd.DataFrame, stage: Stage) -> list[str]:
    """Sentences about one stage, the most serious first; none where nothing stands out.

    Args:
        table: The rows of `GradientHealth` for the stage.
        history: Its epochs, with `loss` and, where something was held out, `val_loss`.
        stage: The stage, of which early stopping may have left epochs out.
    """
    said = [*_about_gradients(table), *_about_rates(table, history), *_about_curves(history, stage)]
    return [f"Stage {stage.name!r}: {sentence}" for sentence in said]


def _about_gradients(table: pd.DataFrame) -> Iterator[str]:
    trained = table[table["trained"].astype(bool)]
    norms = {
        str(group): rows["gradient_norm"].to_numpy("float64")
        for group, rows in trained.groupby("group", sort=False)
        if not rows["gradient_norm"].isna().all()  # not measured
    }
    if not norms:
        return
    wild = [
        group
        for group, values in norms.items()
        if not np.isfinite(values).all()
        or values.max() > EXPLODED
        or values.max() > GROWN * max(values[0], 1e-3)
    ]
    if wild:
        highest = _number(max(float(norms[group].max()) for group in wild))
        yield (
            f"gradients explode in {_named(wild)} (norm up to {highest}). "
            "A lower --learning-rate, training.clip.limit=0.5 or a longer training.warmup helps."
        )
    typical = {group: float(np.median(values)) for group, values in norms.items()}
    gone = [group for group, norm in typical.items() if norm < VANISHED * max(typical.values())]
    if gone and not wild:
        lowest = _number(min(typical[group] for group in gone))
        yield (
            f"gradients vanish in {_named(gone)} (norm {lowest}, less than {VANISHED:g} of the largest): "
            "they hardly learn. Freeze them (--plan top) or raise their rates with training.learning_rates."
        )
    dead = {
        str(group): rows["dead_relu_share"].iloc[-1] for group, rows in trained.groupby("group", sort=False)
    }
    silent = [group for group, share in dead.items() if share > DEAD]
    if silent:
        most = max(dead[group] for group in silent)
        yield (
            f"in {_named(silent)} {most:.0%} of the ReLU channels give nothing for a whole batch. "
            "A lower --learning-rate or a longer training.warmup helps where they died in training."
        )


def _about_rates(table: pd.DataFrame, history: pd.DataFrame) -> Iterator[str]:
    backbone = table[table["trained"].astype(bool) & (table["group"] != HEAD)]
    ratios = {
        str(group): float(rows["update_ratio"].max()) for group, rows in backbone.groupby("group", sort=False)
    }
    large = [group for group, ratio in ratios.items() if ratio > LARGE_UPDATE]
    losses = history["loss"].to_numpy("float64")
    if large:
        most = max(ratios[group] for group in large)
        yield (
            f"the rate is too high for {_named(large)}: one step changes the weights by up to "
            f"{most:.0%}. Lower --learning-rate tenfold, or see: tlkit lr-find"
        )
    elif len(losses) > 1 and losses[-1] > RISE * losses[0]:
        yield (
            f"the rate is too high: the training loss rose from {_number(losses[0])} to "
            f"{_number(losses[-1])}. Lower --learning-rate tenfold, or see: tlkit lr-find"
        )
    largest = table["update_ratio"].max()
    if not large and largest < SMALL_UPDATE:
        yield (
            f"the rate is too low: a step changes the weights by {_number(largest)} of their size at most. "
            "Raise --learning-rate tenfold, or see: tlkit lr-find"
        )


def _about_curves(history: pd.DataFrame, stage: Stage) -> Iterator[str]:
    losses = history["loss"].to_numpy("float64")
    if len(losses) < 2:
        return
    falls = (losses[-2] - losses[-1]) / abs(losses[-2]) if losses[-2] else 0.0
    held_out = history["val_loss"].to_numpy("float64") if "val_loss" in history else None
    if held_out is not None and np.isfinite(held_out).all():
        best = int(np.argmin(held_out))
        since = len(held_out) - 1 - best
        if since >= 2 and held_out[-1] > RISE * held_out[best] and losses[-1] < losses[best]:
            yield (
                f"the model overfits: since epoch {best + 1} the validation loss rose from "
                f"{_number(held_out[best])} to {_number(held_out[-1])} while the training loss fell. "
                "training.patience=2, a higher head.dropout, more augmentation or more examples help."
            )
            return
        improving = best == len(held_out) - 1
    else:
        improving = True
    if improving and len(losses) == stage.epochs and falls > STILL_FALLING:
        too = ", and that of validation with it" if held_out is not None else ""
        yield (
            f"the model underfits: the loss still fell by {falls:.0%} in the last epoch{too}. "
            f"More --epochs (it had {stage.epochs}) or a higher --learning-rate helps."
        )


def _named(groups: list[str], shown: int = 4) -> str:
    return ", ".join(groups[:shown]) + (f" and {len(groups) - shown} more" if len(groups) > shown else "")


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not a finite number"
