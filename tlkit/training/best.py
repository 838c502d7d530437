"""The best weights that a run has left so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import pandas as pd

from tlkit.plans import Stage
from tlkit.training.callbacks import checkpoint, epoch_log


def put_back_best(model: keras.Model, stages: Sequence[Stage], folder: Path, monitor: str, mode: str) -> bool:
    """Load the checkpoint with the best monitored value over all stages; of two, the later. False where no
    epoch has ended, and nothing was loaded.

    Args:
        model: The run's model, not compiled.
        stages: Those that have begun.
        folder: The run folder, with `stages/` and `logs/`.
        monitor: The logged value that tells which epoch is best.
        mode: `max` or `min` of it.
    """
    found: list[tuple[float, Path]] = []
    for stage in stages:
        log, weights = epoch_log(folder, stage), checkpoint(folder, stage)
        # Either file alone is from an epoch that did not end.
        if weights.exists() and log.exists() and log.stat().st_size:
            values = pd.read_csv(log)[monitor]
            found.append((values.max() if mode == "max" else -values.min(), weights))
    if found:
        best = max(value for value, _ in found)
        model.load_weights([weights for value, weights in found if value == best][-1])
    return bool(found)
