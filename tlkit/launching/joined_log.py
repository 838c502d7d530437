"""What several processes say, in one stream."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import IO, TextIO


class JoinedLog:
    """Writes whole lines of several processes to one stream, each with the number of its process.

    `is_terminal`: the stream is one, and a process that has it to itself may be drawing a progress bar there.
    """

    def __init__(self, stream: TextIO) -> None:
        self.is_terminal = stream.isatty()
        self._stream = stream
        self._clear = "\r\x1b[2K" if self.is_terminal else ""  # the bar, which is drawn anew below the line
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """Write a line."""
        with self._lock, suppress(OSError, ValueError):  # nobody reads any more, and the workers go on
            self._stream.write(f"{self._clear}{line}\n")
            self._stream.flush()

    def follow(self, index: int, pipe: IO[bytes]) -> None:
        """Write every line of a process until its pipe is closed."""
        with pipe:
            for line in pipe:
                self.say(f"[{index}] {_as_shown(line)}".rstrip())


def _as_shown(line: bytes) -> str:
    """A line as a terminal would leave it: of what was overwritten, the last."""
    return line.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2]
