"""One worker process."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from tlkit.launching.joined_log import JoinedLog

_LAST_LINES_SECONDS = 2.0
# What draws progress bars (rich) asks this before it looks at colours, which can be forced.
_NO_BARS = {"TTY_INTERACTIVE": "0"}


class Worker:
    """A process whose lines go to the log, and whose end is told.

    The standard output of the chief, worker 0, is this process's own. So is its standard error in a terminal,
    for its progress bar; everything else goes line by line to the log.

    The process leads a session of its own: Ctrl-C in the terminal reaches it only by `send`, and what it has
    started ends with it.
    """

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        cores: Sequence[int],
        log: JoinedLog,
        on_end: Callable[[int, int], None],
    ) -> None:
        """Start it. `on_end` is called with its index and exit code, from another thread."""
        is_chief = index == 0
        has_terminal = is_chief and log.is_terminal
        self.index = index
        self._process = subprocess.Popen(
            command,
            env={**environment, **({} if has_terminal else _NO_BARS)},
            stdin=subprocess.DEVNULL,
            stdout=None if is_chief else subprocess.PIPE,
            stderr=None if has_terminal else subprocess.PIPE if is_chief else subprocess.STDOUT,
            start_new_session=True,
        )
        if hasattr(os, "sched_setaffinity"):
            # Its threads, started later, inherit it. Not `preexec_fn`, which may hang beside other threads.
            with suppress(OSError):  # ended already; or the container forbids it, and the scheduler decides
                os.sched_setaffinity(self._process.pid, cores)
        pipe = self._process.stderr or self._process.stdout
        self._threads = [threading.Thread(target=self._wait, args=(on_end,), daemon=True)]
        if pipe is not None:
            self._threads.append(threading.Thread(target=log.follow, args=(index, pipe), daemon=True))
        for thread in self._threads:
            thread.start()

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it and all that it has started, now."""
        with suppress(ProcessLookupError, PermissionError):  # they are gone (macOS says it the second way)
            os.killpg(self._process.pid, signal.SIGKILL)

    def finish_log(self) -> None:
        """Wait for its last lines, once it has ended."""
        for thread in self._threads:
            thread.join(_LAST_LINES_SECONDS)

    def _wait(self, on_end: Callable[[int, int], None]) -> None:
        code = self._process.wait()
        self.kill()  # what it has started and left behind
        on_end(self.index, code)
