"""Where in a stage training is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """After `step` steps of an epoch, both counted from 0.

    Attributes:
        ended: No more epochs are to come: the stage is at its end, or was ended early.
        goes_on: It was ended early because its rest is the next stage.
    """

    epoch: int = 0
    step: int = 0
    ended: bool = False
    goes_on: bool = False
