"""What each of several workers on this machine is told of the others, and its share of the cores."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, pairwise

from tlkit.cluster import listen_on
from tlkit.errors import ConfigError

HOST = "127.0.0.1"
# Below those that Linux (from 32768 on) and others (from 49152 on) give to outgoing connections: TensorFlow
# listens on a port only seconds after it was chosen here.
PORTS = range(10_000, 30_000)
THREADS = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")


def refuse_cluster(environment: Mapping[str, str]) -> None:
    """Raise ConfigError where this process is itself a worker of a cluster."""
    if environment.get("TF_CONFIG"):
        raise ConfigError(
            "TF_CONFIG is set, so this process is a worker of a cluster already. Run the command itself on "
            "each worker, without launch; or unset TF_CONFIG, to start workers on this machine alone."
        )


def choose_ports(count: int) -> list[int]:
    """`count` different ports that nothing on this machine listens on.

    Raises:
        ConfigError: There are not so many.
    """
    free = list(islice(filter(_is_free, random.sample(PORTS, len(PORTS))), count))
    if len(free) < count:
        raise ConfigError(
            f"{count} workers need as many ports between {PORTS.start} and {PORTS.stop - 1}, and {len(free)} "
            "are free on this machine. End what listens there, or start fewer workers."
        )
    return free


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def share_cores(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Each worker's cores: as many for each as there are, neighbours together; one, where they are fewer."""
    if len(cores) < workers:
        return [[cores[index % len(cores)]] for index in range(workers)]
    ends = [len(cores) * index // workers for index in range(workers + 1)]
    return [list(cores[start:end]) for start, end in pairwise(ends)]


def worker_environment(
    index: int, ports: Sequence[int], threads: int, environment: Mapping[str, str]
) -> dict[str, str]:
    """The environment variables of worker `index`; number 0 is the chief.

    A number of threads that somebody has set in `environment` stays.
    """
    cluster = {"worker": [f"{HOST}:{port}" for port in ports]}
    return {
        **dict.fromkeys(THREADS, str(threads)),
        "no_grpc_proxy": HOST,  # gRPC takes a proxy for other machines to its own one, too
        **environment,
        "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
    }


def _is_free(port: int) -> bool:
    with suppress(OSError):
        listen_on(port).close()
        return True
    return False
