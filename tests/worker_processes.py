"""Worker processes that talk over loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

GRACE_SECONDS = 60.0  # for the others, once one has failed


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def free_addresses(count: int) -> list[str]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def environment_of(addresses: Sequence[str], index: int) -> dict[str, str]:
    """The environment variables of a worker."""
    task = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # as in a shell
    return environment


def run_workers(commands: Sequence[Sequence[str]], seconds: float = 300.0) -> list[Ended]:
    """Run Python with each of these arguments as a worker of one cluster.

    When one fails, the others have a minute; after `seconds` all are ended, with the code −9.
    """
    addresses = free_addresses(len(commands))
    processes, files = [], []
    with ExitStack() as stack:
        for index, arguments in enumerate(commands):
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            command, environment = [sys.executable, *arguments], environment_of(addresses, index)
            processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=err))
            files.append((out, err))
        deadline = time.monotonic() + seconds
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            if any(process.returncode for process in processes):
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            time.sleep(0.1)
        for process in processes:
            process.kill()
            process.wait()
        ended = []
        for process, (out, err) in zip(processes, files, strict=True):
            out.seek(0)
            err.seek(0)
            ended.append(Ended(process.returncode, out.read(), err.read()))
        return ended


def succeeded(ended: Sequence[Ended]) -> list[Ended]:
    """The same, where all ended well."""
    assert all(each.code == 0 for each in ended), "\n".join(f"[{each.code}] {each.err}" for each in ended)
    return list(ended)
