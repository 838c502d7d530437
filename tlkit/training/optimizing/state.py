"""What an optimizer has learnt about each weight, carried from one stage into the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tlkit.training.optimizing.stage_optimizers import AVERAGE, StageOptimizer


@dataclass(frozen=True)
class OptimizerState:
    """Moments and step counts, by the path of the weight: plain arrays, so that they can be stored.

    Attributes:
        slots: Path → name of the slot (`momentum`, `velocity` …) → value.
        steps: Path → how often the weight was updated, over all stages.
    """

    slots: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)


def take_state(optimizer: StageOptimizer, before: OptimizerState | None = None) -> OptimizerState:
    """The state at the end of a stage.

    Args:
        optimizer: Built.
        before: The state at the stage's beginning: weights that this stage froze keep theirs.

    Running averages of weights are left out: a stage begins at the average that the one before ended with.
    """
    before = before or OptimizerState()
    slots: dict[str, dict[str, np.ndarray]] = {}
    for path, name, value in optimizer.slots:
        if name != AVERAGE:
            slots.setdefault(path, {})[name] = value.numpy()
    counts = optimizer.steps_before.numpy() + int(optimizer.iterations.numpy())
    steps = {variable.path: int(count) for variable, count in zip(optimizer.trained, counts, strict=True)}
    return OptimizerState({**before.slots, **slots}, {**before.steps, **steps})


def put_state(optimizer: StageOptimizer, state: OptimizerState) -> None:
    """Begin where `state` ended, for the weights that it knows. Changes the optimizer, which is built."""
    for path, name, value in optimizer.slots:
        known = state.slots.get(path, {}).get(name)
        if known is not None:
            value.assign(known)
    optimizer.steps_before.assign([state.steps.get(variable.path, 0) for variable in optimizer.trained])
