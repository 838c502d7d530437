"""Ctrl-C and SIGTERM: once where everything is saved, twice at once, and never much later than asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tlkit.stopping import Stop, stopped_by_signals


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(1)  # Python looks for signals between two of its instructions


def test_a_signal_waits_for_whoever_looks_and_the_second_one_does_not():
    stop = Stop()
    with stopped_by_signals(stop):
        stop.waits = True
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        assert stop.is_asked
        with pytest.raises(KeyboardInterrupt):
            stop.obey()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_second_sigterm_waits_too():
    stop = Stop()
    stop.waits = True
    for _ in range(3):
        stop.ask(signal.SIGTERM)
    with pytest.raises(SystemExit):
        stop.obey()


def test_a_signal_cuts_in_where_nobody_looks():
    stop = Stop()
    with stopped_by_signals(stop), pytest.raises(SystemExit) as ended:
        send(signal.SIGTERM)
    assert ended.value.code == 143


def test_the_handlers_before_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stopped_by_signals(Stop()):
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


FORKS = """
import os, signal, sys, time
from tlkit import stopping
stop = stopping.Stop()
stop.waits = True  # a signal is noted, and nobody looks
with stopping.stopped_by_signals(stop):
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    stayer = os.fork()
    if not stayer:
        time.sleep(60)
        os._exit(0)
    time.sleep(1)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert not stop.is_asked
    started = time.monotonic()
assert time.monotonic() - started < 30, "a process that lives on held the block"
os.kill(stayer, signal.SIGKILL)
"""


def test_a_forked_process_ends_as_any_other_and_holds_nothing_up():
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=120)


BUSY = """
import ctypes, sys
from tlkit import stopping
stopping.GRACE = 1.0
stop = stopping.Stop()
stop.waits = True
with stopping.stopped_by_signals(stop):
    print("ready", flush=True)
    for _ in range(int(sys.argv[1])):
        ctypes.CDLL(None).usleep(900_000)  # nobody looks at `is_asked`
"""


def test_a_process_that_is_busy_elsewhere_ends_in_time():
    with subprocess.Popen([sys.executable, "-c", BUSY, "30"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
        assert time.monotonic() - started < 10
