from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import tlkit
from tlkit import launching
from tlkit.cli import main
from tlkit.errors import ConfigError
from tlkit.launching import cluster, launch_workers
from tlkit.launching.cluster import choose_ports, share_cores, usable_cores

from conftest import ROOT

# What every child knows: its number, and a file of its own in the folder that the test gave it.
CHILD = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
note = Path(sys.argv[1], str(index))
def say(text, stream=sys.stderr):
    stream.write(text)
    stream.flush()
def wait():
    note.write_text(str(os.getpid()))
    time.sleep(60)
"""
SOON = 30.0  # seconds; a child that is only waited for takes 60


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TF_CONFIG", *cluster.THREADS):
        monkeypatch.delenv(name, raising=False)


class Launched:
    """Starts children that run some Python, and keeps what they said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = io.StringIO()

    def __call__(self, code: str, workers: int = 2, **options: Any) -> int:
        command = [sys.executable, "-c", CHILD + code, str(self.folder)]
        if options.get("restarts"):
            options["restart_command"] = [*command, "again"]
        started = time.monotonic()
        answer = launch_workers(command, workers, log=self.log, **options)
        assert time.monotonic() - started < SOON
        return answer

    def lines(self) -> list[str]:
        return self.log.getvalue().splitlines()

    def notes(self) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.iterdir())]

    def once_all_wait(self, act: Callable[[], None], workers: int = 2) -> None:
        """Do something from another thread, as soon as all children are waiting."""

        def run() -> None:
            while len(list(self.folder.iterdir())) < workers or not all(self.notes()):
                time.sleep(0.02)
            act()

        threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    folder = tmp_path / "notes"
    folder.mkdir()
    yield Launched(folder)
    assert not any(note.isdigit() and is_alive(int(note)) for note in Launched(folder).notes())


class Unread(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def is_alive(pid: int) -> bool:
    """Whether a process runs. One that has ended keeps its number where nobody asks how it ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_every_line_has_the_number_of_its_worker(launched: Launched) -> None:
    code = "say(f'begin {index} '); time.sleep(0.3); say(f'end {index}\\nlast {index}')"
    assert launched(code, workers=3) == 0
    expected = [f"[{n}] {text}" for n in range(3) for text in (f"begin {n} end {n}", f"last {n}")]
    assert sorted(launched.lines()) == sorted(expected)


def test_standard_output_is_that_of_the_chief_alone(
    launched: Launched, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launched("say('{\\n  \"worker\": %d}' % index, sys.stdout)") == 0
    assert capfd.readouterr().out == '{\n  "worker": 0}'
    assert launched.lines() == ["[1] {", '[1]   "worker": 1}']


def test_progress_bars_leave_their_last_state(launched: Launched) -> None:
    assert launched("say('\\r10 %\\r20 %\\rdone\\r\\n')", workers=1) == 0
    assert launched.lines() == ["[0] done"]


def test_forced_colours_do_not_bring_progress_bars(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    code = "from rich.console import Console; say(f'{Console(stderr=True).is_interactive}\\n')"
    assert launched(code) == 0
    assert sorted(launched.lines()) == ["[0] False", "[1] False"]


def test_what_is_not_text_and_what_is_long_is_shown(launched: Launched) -> None:
    assert launched("os.write(2, b'\\xff\\n' + b'x' * 200_000)", workers=1) == 0
    assert launched.lines() == ["[0] \ufffd", "[0] " + "x" * 200_000]


def test_workers_go_on_when_nobody_reads_their_lines(launched: Launched) -> None:
    launched.log = Unread()
    assert launched("say('line\\n' * 100_000); note.write_text('done')") == 0
    assert launched.notes() == ["done", "done"]


def test_every_worker_knows_the_others_and_has_its_share(launched: Launched) -> None:
    code = (
        "cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []\n"
        "note.write_text(json.dumps([dict(os.environ), cores, os.getpid()]))"
    )
    assert launched(code) == 0
    (first, first_cores, _), (second, second_cores, _) = map(json.loads, launched.notes())
    configs = [json.loads(each["TF_CONFIG"]) for each in (first, second)]
    assert [config["task"] for config in configs] == [
        {"type": "worker", "index": 0},
        {"type": "worker", "index": 1},
    ]
    assert configs[0]["cluster"] == configs[1]["cluster"]
    addresses = configs[0]["cluster"]["worker"]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", address) for address in addresses)
    assert len(set(addresses)) == 2
    shares = share_cores(usable_cores(), 2)
    for each, share in zip((first, second), shares, strict=True):
        assert {each[name] for name in cluster.THREADS} == {str(len(share))}
    if hasattr(os, "sched_setaffinity"):
        assert [first_cores, second_cores] == shares


@pytest.mark.parametrize(
    ("cores", "workers", "shares"),
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([1, 3, 5, 7, 9], 2, [[1, 3], [5, 7, 9]]),
        ([0, 1], 1, [[0, 1]]),
        ([4, 6], 3, [[4], [6], [4]]),
    ],
)
def test_cores_are_divided(cores: list[int], workers: int, shares: list[list[int]]) -> None:
    assert share_cores(cores, workers) == shares


def test_a_number_of_threads_that_somebody_chose_stays(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launched("note.write_text(os.environ['OMP_NUM_THREADS'] + ' threads')") == 0
    assert launched.notes() == ["7 threads", "7 threads"]


def test_a_port_that_is_taken_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        monkeypatch.setattr(cluster, "PORTS", range(taken, taken + 1))
        with pytest.raises(ConfigError, match=f"between {taken} and {taken}, and 0 are free"):
            choose_ports(1)
    assert choose_ports(1) == [taken]


def test_all_end_with_the_one_that_fails_and_its_exit_code_is_the_answer(launched: Launched) -> None:
    assert launched("sys.exit(3) if index == 1 else wait()", workers=3) == 3
    assert launched.lines() == ["Worker 1 ended with exit code 3. Ending worker 0, 2."]


def test_the_others_may_say_something_before_they_end(launched: Launched) -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: (say("saved\\n"), sys.exit(143)))
if index == 1:
    while not Path(sys.argv[1], "0").exists():
        time.sleep(0.02)
    sys.exit(3)
wait()
"""
    assert launched(code) == 3
    assert launched.lines() == ["Worker 1 ended with exit code 3. Ending worker 0.", "[0] saved"]


def test_who_does_not_end_is_killed(launched: Launched) -> None:
    code = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if index == 1:
    while not Path(sys.argv[1], "0").exists():
        time.sleep(0.02)
    sys.exit(3)
wait()
"""
    assert launched(code, grace=0.3) == 3
    assert launched.lines()[-1] == "Killed, because not ended within 0.3 s: worker 0."


def test_a_worker_that_was_killed_is_128_and_the_signal(launched: Launched) -> None:
    assert launched("os.kill(os.getpid(), signal.SIGKILL) if index == 0 else wait()") == 137
    (line,) = launched.lines()
    assert line.startswith("Worker 0 was ended by signal 9 (")
    assert "out of memory" in line


def test_what_a_worker_has_started_ends_with_it(launched: Launched) -> None:
    code = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
note.write_text(str(child.pid))
os._exit(4)
"""
    assert launched(code, workers=1) == 4
    (child,) = map(int, launched.notes())
    ended = time.monotonic() + SOON
    while is_alive(child):
        assert time.monotonic() < ended
        time.sleep(0.02)


def test_ctrl_c_is_passed_on_once_and_gives_time_to_save(launched: Launched) -> None:
    code = """
try:
    wait()
except KeyboardInterrupt:
    time.sleep(0.5)
    say("saved\\n")
    sys.exit(130)
"""
    before = signal.getsignal(signal.SIGINT)
    launched.once_all_wait(lambda: send(signal.SIGINT))
    assert launched(code, grace=0.1) == 130
    assert signal.getsignal(signal.SIGINT) is before
    first, *others = launched.lines()
    assert first.startswith("Ctrl-C: waiting")
    assert sorted(others) == ["[0] saved", "[1] saved"]


def test_ctrl_c_twice_ends_what_does_not_end(launched: Launched) -> None:
    def press_twice() -> None:
        send(signal.SIGINT)
        while not launched.lines():
            time.sleep(0.02)
        send(signal.SIGINT)

    launched.once_all_wait(press_twice)
    assert launched("signal.signal(signal.SIGINT, signal.SIG_IGN); wait()", grace=0.3) == 137
    assert launched.lines()[-1] == "Killed, because not ended within 0.3 s: worker 0, 1."


def test_sigterm_is_passed_on(launched: Launched) -> None:
    launched.once_all_wait(lambda: send(signal.SIGTERM))
    assert launched("signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); wait()", restarts=1) == 143
    assert launched.lines() == ["SIGTERM: the workers have 15 s to end."]


def test_a_signal_that_this_process_ignores_stays_ignored(launched: Launched) -> None:
    def hang_up_and_end() -> None:
        send(signal.SIGHUP)
        send(signal.SIGTERM)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        launched.once_all_wait(hang_up_and_end)
        assert launched("wait()") == 143
    finally:
        signal.signal(signal.SIGHUP, before)
    assert launched.lines() == ["SIGTERM: the workers have 15 s to end."]


DIES_UNLESS_AGAIN = """
first = Path(sys.argv[1], "starts of 0")
starts = Path(sys.argv[1], f"starts of {index}")
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
if index == 1 and sys.argv[-1] != "again":
    while not first.exists() or not first.read_text():
        time.sleep(0.02)
    DIES
if index == 0 and sys.argv[-1] != "again":
    time.sleep(60)
"""


@pytest.mark.parametrize("dies", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(1)", "sys.exit(143)"])
def test_all_start_again_after_a_death_by_chance(launched: Launched, dies: str) -> None:
    assert launched(DIES_UNLESS_AGAIN.replace("DIES", dies), restarts=2) == 0
    assert launched.lines()[-1] == "All 2 workers start again (restart 1 of 2)."
    assert launched.notes() == ["xx", "xx"]


def test_restarts_are_counted(launched: Launched) -> None:
    code = DIES_UNLESS_AGAIN.replace("DIES", "pass") + "sys.exit(1) if index else time.sleep(60)"
    assert launched(code, restarts=2) == 1
    assert launched.folder.joinpath("starts of 1").read_text() == "xxx"
    assert sum("start again" in line for line in launched.lines()) == 2


def test_a_mistake_in_the_input_stays_one(launched: Launched) -> None:
    assert launched("sys.exit(2) if index else time.sleep(60)", restarts=2) == 2
    assert launched.lines() == ["Worker 1 ended with exit code 2. Ending worker 0."]


def test_nobody_starts_again_once_the_chief_is_done(launched: Launched) -> None:
    code = """
chief = Path(sys.argv[1], "0")
if index == 0:
    note.write_text(str(os.getpid()))
    sys.exit(0)
while not chief.exists() or not chief.read_text() or Path("/proc", chief.read_text()).exists():
    time.sleep(0.02)
time.sleep(0.5)
sys.exit(1)
"""
    assert launched(code, restarts=2) == 1
    assert launched.lines() == ["Worker 1 ended with exit code 1."]


def test_a_worker_of_a_cluster_launches_nothing(launched: Launched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    with pytest.raises(ConfigError, match="TF_CONFIG is set"):
        launched("wait()")
    monkeypatch.setenv("TF_CONFIG", "")
    assert launched("pass") == 0


def test_a_terminal_is_the_chiefs_and_the_others_write_above_its_bar(tmp_path: Path) -> None:
    code = "import os, json, sys; index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
    code += "print(sys.stderr.isatty(), file=sys.stdout if index == 0 else sys.stderr)"
    script = "import sys; from tlkit.launching import launch_workers; "
    script += "sys.exit(launch_workers([sys.executable, '-c', sys.argv[1]], 2, log=sys.stderr))"
    master, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, code], stdout=subprocess.PIPE, stderr=terminal, env=environment
    )
    os.close(terminal)
    said = os.read(master, 10_000)
    os.close(master)
    assert (done.returncode, done.stdout) == (0, b"True\n")
    assert said == b"\r\x1b[2K[1] False\r\n"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command is refused with."""
    assert main(["launch", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_launch_says_what_is_wrong_once_and_before_it_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "launch_workers", None)
    assert "Missing option '--workers'" in refused(capsys, "--", "finetune")
    assert "0 is not in the range x>=1" in refused(capsys, "--workers", "0", "--", "finetune")
    assert "-1 is not in the range x>=0" in refused(capsys, "--workers", "2", "--restarts", "-1", "finetune")
    assert "Nothing to launch. Add a command: -- finetune" in refused(capsys, "--workers", "2")
    assert "Nothing to launch" in refused(capsys, "--workers", "2", "--")
    assert "received 'predict'" in refused(capsys, "--workers", "2", "--", "predict", "runs/a")
    two = ("--workers", "2", "--", "finetune", "--data", "photos")
    error = refused(capsys, *two, "--bakcbone", "x")
    assert "No such option" in error
    assert "See: tlkit finetune --help" in error
    assert "unknown key 'hed'" in refused(capsys, *two, "hed.dropout=1")
    assert "strategy: cpu is for one process, and 2 workers" in refused(capsys, *two, "--strategy", "cpu")
    assert "--dry-run trains nothing" in refused(capsys, *two, "--dry-run")
    again = ("--workers", "2", "--restarts", "1", "--", "finetune", "--data", "photos")
    assert "name it, with --out RUN" in refused(capsys, *again)
    for option in (["--overwrite"], ["--compare", "seed=1"]):
        assert "neither --overwrite nor --compare" in refused(capsys, *again, "--out", "runs/a", *option)


def test_launch_starts_tlkit_with_the_same_python(monkeypatch: pytest.MonkeyPatch) -> None:
    received: dict[str, Any] = {}

    def fake(command: list[str], workers: int, **options: Any) -> int:
        received.update(command=command, workers=workers, **options)
        return 5

    monkeypatch.setattr(launching, "launch_workers", fake)
    arguments = ["finetune", "--data", "photos", "out=runs/a", "--strategy", "cpu"]
    assert main(["launch", "--workers", "1", "--restarts", "3", "--", *arguments]) == 5
    assert received["command"] == [sys.executable, "-P", "-m", "tlkit", *arguments]
    assert received["restart_command"] == [*received["command"], "--resume"]
    assert (received["workers"], received["restarts"], received["log"]) == (1, 3, sys.stderr)
    here = str(Path(tlkit.__file__).parents[1])  # of the repository, or of what pip installed
    assert here in received["environment"]["PYTHONPATH"].split(os.pathsep)
    assert not Path(received["environment"]["TMPDIR"]).exists(), "it goes with what killed workers leave"


def test_launch_joins_the_lines_of_real_workers(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('a module of the working folder was imported')")
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "--workers", "1", "finetune", "seed=1"]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    assert first.startswith("[0] Error: No data. Add --data FOLDER")
    assert second == "Worker 0 ended with exit code 2."


def test_launch_help_of_finetune_is_finetunes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--workers", "2", "--", "finetune", "--help"]) == 0
    assert "Usage: tlkit finetune" in capsys.readouterr().out
