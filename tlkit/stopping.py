"""Ending a run from outside: by Ctrl-C, or by SIGTERM, which machines send before they go away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TERMINATED = 143
GRACE = 8.0  # seconds after SIGTERM; whoever sent it usually kills after ten


class Stop:
    """Whether the run was asked to end.

    Attributes:
        waits: Somebody looks at `is_asked` before long, and saves first; so a first signal does not cut in.
    """

    def __init__(self) -> None:
        self.waits = False
        self._signal: int | None = None

    @property
    def is_asked(self) -> bool:
        return self._signal is not None

    def ask(self, number: int) -> None:
        """A signal has come. The second one ends the run where it is."""
        is_second = self.is_asked
        self._signal = number
        if is_second or not self.waits:
            self.obey()

    def obey(self) -> None:
        """Raise KeyboardInterrupt after Ctrl-C, and SystemExit (143) after SIGTERM."""
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal is not None:
            raise SystemExit(TERMINATED)


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """While the block runs, Ctrl-C and SIGTERM ask `stop`. Only the main thread can have that.

    Python sees a signal between two of its own instructions, and one training step can be long: a process
    that was sent SIGTERM ends after `GRACE` seconds in any case.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop.ask(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _ended_in_time():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended_in_time() -> Iterator[None]:
    if os.name != "posix":
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The operating system's own handler writes the signal's number there, whatever Python is at.
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    timers: list[threading.Timer] = []

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] == signal.SIGTERM and not timers:
                timers.append(threading.Timer(GRACE, _end))
                timers[0].daemon = True
                timers[0].start()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)
        for timer in timers:
            timer.cancel()


def _end() -> Any:
    os._exit(TERMINATED)
