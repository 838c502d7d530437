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
        signal: The last one that came.
        waits: Somebody looks at `is_asked` before long, and saves first; so a first signal does not cut in.
    """

    def __init__(self) -> None:
        self.waits = False
        self.signal: int | None = None
        self._was_pressed = False

    @property
    def is_asked(self) -> bool:
        return self.signal is not None

    def ask(self, number: int) -> None:
        """A signal has come. A second Ctrl-C ends the run where it is; not a second SIGTERM, because machines
        send it to a whole group, and whoever started the process passes it on."""
        is_second = number == signal.SIGINT and self._was_pressed
        self.signal, self._was_pressed = number, self._was_pressed or number == signal.SIGINT
        if is_second or not self.waits:
            self.obey()

    def obey(self) -> None:
        """Raise KeyboardInterrupt after Ctrl-C, and SystemExit (143) after SIGTERM."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
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

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    taken = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    is_over = threading.Event()

    def put_back() -> None:
        for number, handler in taken.items():  # None: set outside Python, which cannot put it back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def leave_in_child() -> None:
        if not is_over.is_set():  # a process forked in the block has all of this, and is not the run
            signal.set_wakeup_fd(-1)
            put_back()

    if os.name == "posix":
        os.register_at_fork(after_in_child=leave_in_child)
    for number in taken:
        signal.signal(number, handle)
    try:
        with _ended_in_time():
            yield
    finally:
        is_over.set()
        put_back()


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
    own = os.getpid()

    def watch() -> None:
        while number := ord(os.read(reader, 1)):
            if number == signal.SIGTERM and not timers:
                timers.append(threading.Timer(GRACE, _end))
                timers[0].daemon = True
                timers[0].start()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        if os.getpid() == own:  # and no process forked in the block, which has the same pipe, and no watcher
            os.write(writer, b"\0")  # closing it would end nothing while that has it open
            watcher.join()
        os.close(writer)
        os.close(reader)
        for timer in timers:
            timer.cancel()


def _end() -> Any:
    os._exit(TERMINATED)
