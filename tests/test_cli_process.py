"""How the process of the command ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# A command that leaves something to do at exit, and something that takes long to take down.
SCRIPT = """
import atexit
from tlkit.cli import process

class Slow:
    def __del__(self):
        print("taken down", flush=True)

slow = Slow()

def main():
    atexit.register(print, "at exit")
    print("done")
    ENDS

process.main = main
process.run()
"""
WORKER = {"TF_CONFIG": '{"cluster": {}}'}


def run(ends: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    code = SCRIPT.replace("ENDS", ends)
    return subprocess.run(
        [sys.executable, "-c", code], env={**own, **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize(("ends", "code"), [("return 2", 2), ("raise SystemExit(143)", 143)])
def test_a_worker_that_fails_leaves_at_once(ends: str, code: int) -> None:
    done = run(ends, WORKER)
    assert (done.returncode, done.stdout, done.stderr) == (code, "done\nat exit\n", "")


def test_a_worker_says_what_went_wrong_before_it_leaves() -> None:
    done = run("raise KeyError('a bug')", WORKER)
    assert (done.returncode, done.stdout) == (1, "done\nat exit\n")
    assert done.stderr.endswith("KeyError: 'a bug'\n")


@pytest.mark.parametrize(
    ("ends", "environment"), [("return 0", WORKER), ("return 2", {})], ids=["fine", "alone"]
)
def test_all_others_are_taken_down(ends: str, environment: dict[str, str]) -> None:
    done = run(ends, environment)
    assert (done.returncode, done.stdout) == (int(ends[-1]), "done\nat exit\ntaken down\n")
