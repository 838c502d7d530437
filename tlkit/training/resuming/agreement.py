"""When the workers of a run save, and stop: all of them after the same step."""

from __future__ import annotations

import time
from dataclasses import dataclass

import tensorflow as tf

from tlkit.exchange import gather, is_multi_worker
from tlkit.stopping import Stop

APART = 2.0  # seconds between two exchanges; one takes some milliseconds


@dataclass(frozen=True)
class Agreed:
    """What all workers know after the same step.

    Attributes:
        stops: Somebody was asked to stop.
        time_is_up: It is time for a save, by the clock of the first worker.
        ends: Somebody's callback ends the stage.
    """

    stops: bool = False
    time_is_up: bool = False
    ends: bool = False


class Agreement:
    """What workers tell each other every few steps of one kind: about every two seconds, as the first one
    counts them. A process that runs alone knows at once.
    """

    def __init__(self, strategy: tf.distribute.Strategy, stop: Stop) -> None:
        self.strategy = strategy
        self.stop = stop
        self.steps = 0
        self.until_next = 1
        self.asked_at = time.monotonic()

    def after_step(self, time_is_up: bool = False) -> Agreed:
        """What is agreed after this step; nothing, where it is not time to ask yet."""
        self.steps += 1
        if is_multi_worker(self.strategy) and self.steps < self.until_next:
            return Agreed()
        return self.ask(time_is_up)

    def ask(self, time_is_up: bool = False, ends: bool = False) -> Agreed:
        """As `after_step`, without waiting for the next exchange."""
        if not is_multi_worker(self.strategy):
            return Agreed(self.stop.is_asked, time_is_up, ends)
        now = time.monotonic()
        speed = max(self.steps, 1) / max(now - self.asked_at, 1e-6)
        own = (self.stop.signal or 0, time_is_up, ends, min(APART * speed, 1e6))
        signals, up, ending, steps = gather(self.strategy, own).T
        if any(signals):
            self.stop.signal = int(max(signals))
        self.steps, self.until_next, self.asked_at = 0, max(1, int(steps[0])), now
        # Not what was asked for since: the others do not know of it.
        return Agreed(bool(any(signals)), bool(up[0]), bool(any(ending)))
