"""The workers that share a run: processes, on one machine or on several, as TF_CONFIG names them."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlkit.errors import ConfigError
from tlkit.progress import make_console

JOBS = ("chief", "worker")
EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
WAIT_SECONDS = 600.0  # a cluster may have to fetch images and find machines first
ASK_SECONDS = 2.0
PAUSE_SECONDS = 0.2
WITHOUT_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # though Python was built for it


@dataclass(frozen=True)
class Cluster:
    """The workers of a run.

    Attributes:
        addresses: `host:port` of each. The first one, the chief, writes and speaks for all of them.
        number: Which of them this process is, from 0.
        has_chief: Whether TF_CONFIG calls the first one `chief`, and not `worker` 0.
    """

    addresses: tuple[str, ...]
    number: int
    has_chief: bool = False

    @property
    def jobs(self) -> dict[str, list[str]]:
        """The addresses as TensorFlow takes them."""
        n_chiefs = int(self.has_chief)
        jobs = {"chief": list(self.addresses[:n_chiefs]), "worker": list(self.addresses[n_chiefs:])}
        return {name: addresses for name, addresses in jobs.items() if addresses}

    @property
    def task(self) -> tuple[str, int]:
        """What TensorFlow calls this process: job and index."""
        if self.has_chief:
            return ("chief", 0) if self.number == 0 else ("worker", self.number - 1)
        return "worker", self.number

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(each for number, each in enumerate(self.addresses) if number != self.number)


def find_cluster(strategy: str) -> Cluster | None:
    """The workers among which a run with this `strategy` is shared; None where one process runs it alone.

    Raises:
        ConfigError: TF_CONFIG is not what it should be, or not there for `multi_worker`.
    """
    if strategy not in ("auto", "multi_worker"):
        return None
    cluster = read_cluster()
    if strategy == "auto":
        return cluster if cluster is not None and len(cluster.addresses) > 1 else None
    if cluster is None:
        raise ConfigError(
            f"strategy: multi_worker reads the workers from TF_CONFIG, which names none. It should be like "
            f"{EXAMPLE}, with an index of its own for each worker."
        )
    return cluster


def is_chief(strategy: str) -> bool:
    """Whether this process is the one of a run's workers that writes and speaks, as one that is alone is."""
    cluster = find_cluster(strategy)
    return cluster is None or cluster.number == 0


def require_alone(strategy: str, what: str) -> None:
    """Raise the ConfigError for something that several workers cannot do together."""
    cluster = find_cluster(strategy)
    if cluster is not None:
        raise ConfigError(
            f"{what} runs in one process, but TF_CONFIG names {len(cluster.addresses)} workers. "
            "Use --strategy cpu, gpu or mirrored."
        )


def read_cluster() -> Cluster | None:
    """What TF_CONFIG says; None where it is not set, or names nobody.

    Raises:
        ConfigError: It is malformed, or names tasks that tlkit does not have.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise _wrong(f"it is not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise _wrong(f"expected an object, received {text[:60]!r}")
    if not tree.get("cluster"):
        return None
    jobs = _read_jobs(tree["cluster"])
    job, index = _read_task(tree.get("task"), jobs)
    return Cluster(
        addresses=(*jobs["chief"], *jobs["worker"]),
        number=index if job == "chief" else len(jobs["chief"]) + index,
        has_chief=bool(jobs["chief"]),
    )


def _read_jobs(cluster: Any) -> dict[str, list[str]]:
    """The addresses of `chief` and of `worker`; either may be empty."""
    if not isinstance(cluster, dict):
        raise _wrong(f"cluster: expected an object, received {cluster!r}")
    jobs: dict[str, list[str]] = {name: [] for name in JOBS}
    for name, addresses in cluster.items():
        if not isinstance(addresses, list):
            raise _wrong(f"cluster.{name}: expected a list of host:port, received {addresses!r}")
        if addresses and name not in JOBS:
            raise _wrong(
                f"cluster.{name}: tlkit has no tasks of this type, only chief and worker: every worker holds "
                "the whole model, and evaluates"
            )
        for address in addresses:
            if not isinstance(address, str) or not _is_address(address):
                raise _wrong(f"cluster.{name}: expected host:port, received {address!r}")
        if addresses:
            jobs[name] = addresses
    if len(jobs["chief"]) > 1:
        raise _wrong(f"cluster.chief: expected one address, received {len(jobs['chief'])}")
    everybody = jobs["chief"] + jobs["worker"]
    twice = [address for place, address in enumerate(everybody) if address in everybody[:place]]
    if twice:
        raise _wrong(f"cluster: {twice[0]} is there twice")
    return jobs


def _read_task(task: Any, jobs: dict[str, list[str]]) -> tuple[str, int]:
    if not isinstance(task, dict):
        raise _wrong(f"task: expected an object with type and index, received {task!r}")
    job, index = task.get("type"), task.get("index")
    if job not in JOBS:
        raise _wrong(f"task.type: expected chief or worker, received {job!r}")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(jobs[job]):
        known = f"0 to {len(jobs[job]) - 1}" if jobs[job] else "none: the cluster has no such task"
        raise _wrong(f"task.index: allowed for {job} is {known}, received {index!r}")
    return job, index


def _is_address(address: str) -> bool:
    host, _, port = address.rpartition(":")
    is_clear = ":" not in host or (host.startswith("[") and host.endswith("]"))  # of IPv6: [::1]:2222
    return bool(host) and is_clear and port.isdecimal() and 0 < int(port) < 2**16


def _wrong(what: str) -> ConfigError:
    return ConfigError(
        f"TF_CONFIG: {what}. It should be like {EXAMPLE}. To run in one process: --strategy cpu, gpu or "
        "mirrored."
    )


def wait_for_workers(cluster: Cluster, seconds: float = WAIT_SECONDS) -> None:
    """Return once every worker has been there, each at its own address.

    While this one waits it listens at its own address, for the others to find. (TensorFlow would wait for an
    hour, and would not say for whom.)

    Raises:
        ConfigError: Somebody did not come, or the port of this worker is taken.
    """
    own = cluster.addresses[cluster.number]
    try:
        listening = listen_on(_split(own)[1])
    except OSError as error:
        raise ConfigError(
            f"TF_CONFIG: this worker should listen at {own}, but cannot ({error.strerror}). "
            "Does another process have the port?"
        ) from None
    with listening:
        missing, started, is_said = cluster.others, time.monotonic(), False
        while missing := tuple(address for address in missing if not _answers(address)):
            waited = time.monotonic() - started
            if waited > seconds:
                raise ConfigError(_not_there(missing, len(cluster.addresses), seconds))
            if not is_said and waited > ASK_SECONDS:
                make_console().print(f"Waiting for {', '.join(missing)}", highlight=False, soft_wrap=True)
                is_said = True
            time.sleep(PAUSE_SECONDS)


def _not_there(missing: Sequence[str], count: int, seconds: float) -> str:
    return (
        f"{len(missing)} of {count} workers did not come within {seconds:.0f} s: {', '.join(missing)}. "
        "Are they started, with the same TF_CONFIG but for task.index, and can they be reached from here?"
    )


def listen_on(port: int) -> socket.socket:
    """Listen at all addresses of this machine, as TensorFlow does; at those of IPv6, too, where it has such.

    Raises OSError where the port is taken.
    """
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in WITHOUT_IPV6:
                raise
    return socket.create_server(("", port))


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(_split(address), timeout=ASK_SECONDS) as connection:
            # Where nobody listens at a local port, TCP may connect a socket with itself.
            return bool(connection.getsockname() != connection.getpeername())
    except (OSError, UnicodeError):  # Python says the second of a name that no host can have
        return False


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
