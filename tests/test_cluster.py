"""TF_CONFIG: what it may say, and waiting for those whom it names."""

from __future__ import annotations

import errno
import json
import socket
import threading

import pytest

from tlkit.cluster import Cluster, find_cluster, is_chief, read_cluster, require_alone, wait_for_workers
from tlkit.errors import ConfigError
from tlkit.progress import make_console, silenced

from worker_processes import free_addresses

TWO = ["a:1", "b:2"]


@pytest.fixture(autouse=True)
def _seeded_keras():
    """Nothing here uses Keras."""


@pytest.fixture
def tf_config(monkeypatch):
    def put(cluster, task):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))

    return put


def task(job, index):
    return {"type": job, "index": index}


def test_workers_are_numbered_and_the_first_is_the_chief(tf_config):
    tf_config({"worker": TWO}, task("worker", 1))
    cluster = read_cluster()
    assert cluster == Cluster(("a:1", "b:2"), 1)
    assert cluster.jobs == {"worker": TWO}
    assert (cluster.task, cluster.others) == (("worker", 1), ("a:1",))
    assert not is_chief("auto")
    assert not is_chief("multi_worker")
    assert is_chief("cpu"), "a run that does not ask for the others is alone"


@pytest.mark.parametrize(("job", "index", "number"), [("chief", 0, 0), ("worker", "0", 1), ("worker", 1, 2)])
def test_a_chief_comes_before_the_workers(tf_config, job, index, number):
    # As Kubeflow and Vertex AI write it, but for what tlkit does not look at.
    tf_config({"chief": ["c:1"], "worker": TWO, "ps": []}, {**task(job, index), "cloud": "x"})
    cluster = read_cluster()
    assert cluster == Cluster(("c:1", "a:1", "b:2"), number, has_chief=True)
    assert cluster.jobs == {"chief": ["c:1"], "worker": TWO}
    assert cluster.task == (job, int(index))
    assert is_chief("auto") == (number == 0)


NOBODY = ("", " ", "{}", '{"cluster": {}}', '{"task": {"type": "worker", "index": 0}}')


@pytest.mark.parametrize("text", NOBODY)
def test_where_nobody_is_named_a_run_is_alone(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert find_cluster("auto") is None
    assert is_chief("auto")
    require_alone("auto", "This")
    with pytest.raises(ConfigError, match="multi_worker reads the workers from TF_CONFIG, which names none"):
        find_cluster("multi_worker")


def test_one_worker_is_a_cluster_only_where_it_is_asked_for(tf_config):
    tf_config({"worker": ["a:1"]}, task("worker", 0))
    assert find_cluster("auto") is None
    assert find_cluster("multi_worker") == Cluster(("a:1",), 0)


@pytest.mark.parametrize(
    ("cluster", "of", "message"),
    [
        ("x", task("worker", 0), "cluster: expected an object, received 'x'"),
        ({"worker": "a:1"}, task("worker", 0), "worker: expected a list of host:port, received 'a:1'"),
        ({"worker": ["a"]}, task("worker", 0), "cluster.worker: expected host:port, received 'a'"),
        ({"worker": ["a:0"]}, task("worker", 0), "expected host:port, received 'a:0'"),
        ({"worker": ["::1:2222"]}, task("worker", 0), "expected host:port, received '::1:2222'"),
        ({"worker": [1]}, task("worker", 0), "expected host:port, received 1"),
        ({"worker": ["a:1", "a:1"]}, task("worker", 0), "a:1 is there twice"),
        ({"chief": TWO}, task("chief", 0), "cluster.chief: expected one address, received 2"),
        ({"worker": TWO, "ps": ["p:1"]}, task("worker", 0), "cluster.ps: tlkit has no tasks of this type"),
        ({"worker": TWO, "evaluator": ["e:1"]}, task("worker", 0), "cluster.evaluator: tlkit has no tasks"),
        ({"worker": TWO}, None, "task: expected an object with type and index, received None"),
        ({"worker": TWO}, task("evaluator", 0), "task.type: expected chief or worker, received 'evaluator'"),
        ({"worker": TWO}, task("worker", 2), "task.index: allowed for worker is 0 to 1, received 2"),
        ({"worker": TWO}, task("worker", -1), "allowed for worker is 0 to 1, received -1"),
        ({"worker": TWO}, task("worker", True), "allowed for worker is 0 to 1, received True"),
        ({"worker": TWO}, task("chief", 0), "allowed for chief is none: the cluster has no such task"),
        ({"worker": TWO}, {"type": "worker"}, "allowed for worker is 0 to 1, received None"),
    ],
)
def test_what_is_wrong_is_said(tf_config, cluster, of, message):
    tf_config(cluster, of)
    with pytest.raises(ConfigError) as error:
        find_cluster("auto")
    assert message in str(error.value)
    assert "To run in one process: --strategy cpu" in str(error.value)
    assert find_cluster("cpu") is None


@pytest.mark.parametrize("text", ["[1]", "no", '{"cluster"'])
def test_what_is_no_object_is_refused(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=r"TF_CONFIG: (expected an object|it is not JSON)"):
        read_cluster()


def test_what_runs_in_one_process_says_so(tf_config):
    tf_config({"worker": TWO}, task("worker", 0))
    with pytest.raises(ConfigError, match="A dry run runs in one process, but TF_CONFIG names 2 workers"):
        require_alone("auto", "A dry run")
    require_alone("mirrored", "A dry run")


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("[::1]", marks=needs_ipv6)])
def test_workers_that_wait_find_each_other(host):
    addresses = tuple(f"{host}:{each.rpartition(':')[2]}" for each in free_addresses(3))
    failed = []

    def wait(number):
        try:
            wait_for_workers(Cluster(addresses, number), seconds=20)
        except ConfigError as error:
            failed.append(str(error))
            return
        # What TensorFlow does then: it listens itself, for as long as the run takes.
        port = int(addresses[number].rpartition(":")[2])
        family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
        servers[number] = socket.create_server((host.strip("[]"), port), family=family)

    servers = {}
    threads = [threading.Thread(target=wait, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for server in servers.values():
        server.close()
    assert not failed
    assert len(servers) == 3


def test_a_worker_that_never_comes_is_named():
    addresses = free_addresses(3)
    host, port = addresses[1].split(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(ConfigError, match=f"1 of 3 workers did not come within 1 s: {addresses[2]}. Are they"),
    ):
        wait_for_workers(Cluster(tuple(addresses), 0), seconds=1)


def test_where_python_has_ipv6_and_the_machine_has_not_workers_listen(monkeypatch):
    create = socket.create_server

    def without_ipv6(address, *, family=socket.AF_INET, **options):
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
    wait_for_workers(Cluster((*free_addresses(1),), 0), seconds=1)


def test_a_name_that_no_host_can_have_is_told():
    with pytest.raises(ConfigError, match=r"1 of 2 workers did not come within 0 s: host..0:2222. Are they"):
        wait_for_workers(Cluster((*free_addresses(1), "host..0:2222"), 0), seconds=0)


def test_a_port_that_is_taken_is_told():
    address, other = free_addresses(2)
    host, port = address.split(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(ConfigError, match=f"should listen at {address}, but cannot .*. Does another process"),
    ):
        wait_for_workers(Cluster((address, other), 0), seconds=1)


def test_who_is_silenced_shows_nothing(capsys):
    with silenced():
        make_console().print("not this")
    make_console().print("but this")
    assert capsys.readouterr().err == "but this\n"
