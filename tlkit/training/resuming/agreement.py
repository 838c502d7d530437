"""When the workers of a run save, and stop: all of them after the same step."""

from __future__ import annotations

import time

import tensorflow as tf

from tlkit.exchange import gather, is_multi_worker
from tlkit.stopping import Stop

APART = 2.0  # seconds between two exchanges; one takes some milliseconds


class Agreement:
    """Whether anybody was asked to stop, and whether it is time for a save by the clock of the first worker.

    Several workers exchange that every few steps, so that they know after the same step: about every two
    seconds, as the first one counts them. A process that runs alone knows at once.
    """

    def __init__(self, strategy: tf.distribute.Strategy, stop: Stop) -> None:
        self.strategy = strategy
        self.stop = stop
        self.steps = 0
        self.until_next = 1
        self.asked_at = time.monotonic()

    def after_step(self, time_is_up: bool) -> tuple[bool, bool]:
        """Whether to stop, and whether to save, as all workers know it after this step."""
        self.steps += 1
        if is_multi_worker(self.strategy) and self.steps < self.until_next:
            return False, False
        return self.ask(time_is_up)

    def ask(self, time_is_up: bool = False) -> tuple[bool, bool]:
        """As `after_step`, without waiting for the next exchange."""
        if not is_multi_worker(self.strategy):
            return self.stop.is_asked, time_is_up
        now = time.monotonic()
        speed = max(self.steps, 1) / max(now - self.asked_at, 1e-6)
        own = (self.stop.signal or 0, time_is_up, min(APART * speed, 1e6))
        signals, up, steps = gather(self.strategy, own).T
        stops = bool(any(signals))
        if stops and not self.stop.is_asked:
            self.stop.ask(int(max(signals)))
        self.steps, self.until_next, self.asked_at = 0, max(1, int(steps[0])), now
        return stops, bool(up[0])  # not what was asked for since: the others do not know of it
