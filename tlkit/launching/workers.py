"""Several workers as one run: they start together, end together, and come back together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TextIO

from tlkit.launching.cluster import (
    choose_ports,
    refuse_cluster,
    share_cores,
    usable_cores,
    worker_environment,
)
from tlkit.launching.joined_log import JoinedLog
from tlkit.launching.worker import Worker

GRACE_SECONDS = 15.0
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def launch_workers(
    command: Sequence[str],
    workers: int,
    *,
    log: TextIO,
    restarts: int = 0,
    restart_command: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    grace: float = GRACE_SECONDS,
) -> int:
    """Run a command in several processes on this machine, as one TensorFlow cluster.

    Each process has its own `TF_CONFIG` and its share of the cores. Standard output of the first, the chief,
    is that of this process. All other lines go to `log`, with the number of their process before them; in a
    terminal, the chief's standard error stays its own, so that it can draw its progress bar.

    As soon as one fails, the others get SIGTERM. SIGINT, SIGTERM and SIGHUP are passed on. Who has not ended
    `grace` seconds after SIGTERM, SIGHUP or a second SIGINT is killed. To be called from the main thread.

    Args:
        command: The program and its arguments.
        workers: How many processes.
        log: This process's standard error.
        restarts: How often all of them start again after a failure that may be chance: a signal, or exit
            code 1. Not after a signal to this process, and not once the chief has done its work.
        restart_command: What they start with then. Default: `command`.
        environment: Environment variables of all workers. Default: those of this process.
        grace: Seconds from being asked to end to being killed.

    Returns:
        The exit code of the process that failed first, 128 + N where signal N ended it; 0 if none failed.

    Raises:
        ConfigError: `environment` has a `TF_CONFIG` already, or ports are wanting.
    """
    environment = os.environ if environment is None else environment
    refuse_cluster(environment)
    joined = JoinedLog(log)
    with _signals_to_events() as events:
        for attempt in range(restarts + 1):
            if attempt:
                command = restart_command or command
                joined.say(f"All {workers} workers start again (restart {attempt} of {restarts}).")
            outcome = _Attempt(command, workers, environment, joined, events, grace).run()
            if not outcome.by_chance:
                break
    return outcome.exit_code


@dataclass(frozen=True)
class _Ended:
    index: int
    code: int  # negative: the signal that ended it


@dataclass(frozen=True)
class _Outcome:
    exit_code: int
    by_chance: bool  # starting again may help


Events = SimpleQueue[_Ended | signal.Signals]


class _Attempt:
    """The workers from their start until the last one has ended."""

    def __init__(
        self,
        command: Sequence[str],
        workers: int,
        environment: Mapping[str, str],
        log: JoinedLog,
        events: Events,
        grace: float,
    ) -> None:
        self.command = command
        self.shares = share_cores(usable_cores(), workers)
        self.environment = environment
        self.log = log
        self.events = events
        self.grace = grace
        self.running: dict[int, Worker] = {}
        self.failed: _Ended | None = None
        self.asked_to_end = False
        self.chief_is_done = False
        self.deadline: float | None = None

    def run(self) -> _Outcome:
        try:
            self._start()
            while self.running:
                self._handle(self._next_event())
        finally:  # whatever went wrong here, nothing stays behind
            for worker in self.running.values():
                worker.kill()
        if self.failed is None:
            return _Outcome(0, by_chance=False)
        code = 128 - self.failed.code if self.failed.code < 0 else self.failed.code
        by_chance = code == 1 or code > 128
        return _Outcome(code, by_chance and not self.asked_to_end and not self.chief_is_done)

    def _start(self) -> None:
        ports = choose_ports(len(self.shares))
        for index, cores in enumerate(self.shares):
            own = worker_environment(index, ports, len(cores), self.environment)
            self.running[index] = Worker(index, self.command, own, cores, self.log, self._on_end)

    def _on_end(self, index: int, code: int) -> None:
        self.events.put(_Ended(index, code))

    def _next_event(self) -> _Ended | signal.Signals | None:
        """What happens next; None where it is time to kill."""
        try:
            return self.events.get(timeout=self.deadline and max(0.0, self.deadline - time.monotonic()))
        except Empty:
            return None

    def _handle(self, event: _Ended | signal.Signals | None) -> None:
        match event:
            case None:
                self._kill()
            case signal.Signals():
                self._pass_on(event)
            case _Ended():
                self._note_end(event)

    def _kill(self) -> None:
        self.deadline = None
        self.log.say(f"Killed, because not ended within {self.grace:g} s: worker {_listed(self.running)}.")
        for worker in self.running.values():
            worker.kill()

    def _pass_on(self, number: signal.Signals) -> None:
        """The first SIGINT leaves as much time for saving as it takes."""
        if number != signal.SIGINT or self.asked_to_end:
            self._set_deadline()
            self.log.say(f"{number.name}: the workers have {self.grace:g} s to end.")
        else:
            self.log.say(f"Ctrl-C: waiting for the workers to save and end; again: {self.grace:g} s for it.")
        self.asked_to_end = True
        for worker in self.running.values():
            worker.send(number)

    def _note_end(self, ended: _Ended) -> None:
        self.running.pop(ended.index).finish_log()
        self.chief_is_done |= ended == _Ended(0, 0)
        if ended.code == 0 or self.failed is not None:
            return
        self.failed = ended
        if self.asked_to_end:
            return
        then = f" Ending worker {_listed(self.running)}." if self.running else ""
        self.log.say(f"Worker {ended.index} {_how(ended.code)}.{then}")
        self._set_deadline()
        for worker in self.running.values():
            worker.send(signal.SIGTERM)

    def _set_deadline(self) -> None:
        self.deadline = self.deadline or time.monotonic() + self.grace


@contextmanager
def _signals_to_events() -> Iterator[Events]:
    """Signals to this process become events, but those that it ignores (a job in the background, nohup)."""
    events: Events = SimpleQueue()
    before = {number: signal.getsignal(number) for number in PASSED_ON}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, lambda received, _: events.put(signal.Signals(received)))
        yield events
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _how(code: int) -> str:
    """How a worker ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    hint = ", most likely out of memory" if -code == signal.SIGKILL else ""
    return f"was ended by signal {-code} ({signal.strsignal(-code)}{hint})"


def _listed(workers: Mapping[int, Worker]) -> str:
    return ", ".join(map(str, workers))
