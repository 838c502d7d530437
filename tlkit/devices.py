"""Which devices a run uses, as a tf.distribute strategy."""

from __future__ import annotations

import functools
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf
from tensorflow.python.eager import context

from tlkit.cluster import Cluster, find_cluster, wait_for_workers
from tlkit.errors import ConfigError

ANSWER_SECONDS = 60  # for all workers are there already


def make_strategy(spec: str = "auto") -> tf.distribute.Strategy:
    """Build the strategy that a run creates and compiles everything in.

    Args:
        spec: `auto` (the workers of TF_CONFIG where it names several; else mirrored for several GPUs, else
            the GPU, else the CPU), `cpu`, `gpu`, `mirrored` (all GPUs, or without a GPU all logical CPU
            devices), `multi_worker` (the workers of TF_CONFIG, each with all its GPUs; to be made before
            anything else of TensorFlow runs in the process) or `tpu` (untested: no TPU was at hand).

    Raises:
        ConfigError: This machine does not have what was asked for; or TF_CONFIG is wrong, or a worker that it
            names did not come.
    """
    cluster = find_cluster(spec)
    if cluster is not None:
        return _multi_worker(cluster)  # now: TensorFlow must not have been asked for devices
    gpus = tf.config.list_logical_devices("GPU")
    if spec == "auto":
        spec = "mirrored" if len(gpus) > 1 else "gpu" if gpus else "cpu"
    match spec:
        case "cpu":
            # Where there is nothing else, TensorFlow's default does the same without a strategy's iterators,
            # which take a tenth of a second for every epoch.
            return tf.distribute.OneDeviceStrategy("/cpu:0") if gpus else tf.distribute.get_strategy()
        case "gpu":
            if not gpus:
                raise ConfigError(
                    "strategy: gpu, but TensorFlow sees no GPU here. Use strategy: cpu, or see: tlkit doctor"
                )
            return tf.distribute.OneDeviceStrategy("/gpu:0")
        case "mirrored":
            return _mirrored(*(device.name for device in gpus or tf.config.list_logical_devices("CPU")))
        case "tpu":
            return _tpu_strategy()
    raise ConfigError(f"Unknown strategy {spec!r}. Allowed: auto, cpu, gpu, mirrored, multi_worker, tpu.")


def device_kind(strategy: tf.distribute.Strategy) -> Literal["CPU", "GPU", "TPU"]:
    """What the replicas of a strategy run on."""
    with strategy.scope():
        if not tf.distribute.has_strategy():
            return "CPU"  # TensorFlow's default, which knows no devices
    device = strategy.extended.worker_devices[0].upper()
    return "TPU" if "TPU" in device else "GPU" if "GPU" in device else "CPU"


def device_name(strategy: tf.distribute.Strategy) -> str:
    """The make of it, and of a CPU how many cores this process may use."""
    if device_kind(strategy) == "CPU":
        names = (line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name"))
        name = next(names, "") or platform.processor() or platform.machine()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return f"{name} × {cores}"
    return str(_gpu_details().get("device_name", device_kind(strategy)))


def without_bfloat16(strategy: tf.distribute.Strategy) -> str:
    """Why a device does not compute in bfloat16; empty where it does, or where nothing is known."""
    if device_kind(strategy) == "GPU":
        capability = _gpu_details().get("compute_capability", (8, 0))
        return "" if tuple(capability) >= (8, 0) else "this GPU has no bfloat16 arithmetic"
    if device_kind(strategy) == "CPU":
        features = [line for line in _cpu_info() if line.lower().startswith(("flags", "features"))]
        if features and "bf16" not in features[0]:
            return "this CPU has no bfloat16 instructions"
    return ""


def _cpu_info() -> list[str]:
    """What Linux says about the CPU; nothing elsewhere."""
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def _gpu_details() -> dict[str, Any]:
    gpus = tf.config.list_physical_devices("GPU")
    return dict(tf.config.experimental.get_device_details(gpus[0])) if gpus else {}


@functools.cache
def _mirrored(*devices: str) -> tf.distribute.MirroredStrategy:
    """The one of this process: a second one would number its reductions from the start again, and where its
    model has other shapes, TensorFlow 2.21 stops with a shape mismatch between the two."""
    return tf.distribute.MirroredStrategy(list(devices))


@functools.cache
def _multi_worker(cluster: Cluster) -> tf.distribute.Strategy:
    """The one of this process: TensorFlow's server for the other workers is started once."""
    wait_for_workers(cluster)
    job, index = cluster.task
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster.jobs),
        task_type=job,
        task_id=index,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        _require_same_devices(cluster, strategy)
    except RuntimeError as error:
        raise ConfigError(
            f"strategy: multi_worker has to be made before anything else of TensorFlow runs ({error}). Begin "
            'the program with tlkit.make_strategy("multi_worker"), before models and data sets are made.'
        ) from None
    except tf.errors.OpError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"strategy: multi_worker, but the workers cannot talk ({reason[:200]}).") from None
    # All workers have the same number of batches, and no replica is ever without an example: nobody has to
    # ask all others before every batch whether they have one.
    strategy.extended.experimental_enable_get_next_as_optional = False
    return strategy


def _require_same_devices(cluster: Cluster, strategy: tf.distribute.Strategy) -> None:
    """Raise the ConfigError where one worker has other devices than another. TensorFlow counts on the same in
    each, and what they exchange fails otherwise, or waits for ever.

    So the numbers go through its coordination service, which has no public name (tried on TensorFlow 2.21).
    """

    def tell(what: str, value: str) -> None:
        context.context().set_config_key_value(f"tlkit/{what}/{cluster.number}", value)

    def ask(what: str) -> list[str]:
        keys = [f"tlkit/{what}/{number}" for number in range(len(cluster.addresses))]
        return [context.context().get_config_key_value(key, ANSWER_SECONDS * 1000) for key in keys]

    tell("devices", f"{_count_devices(strategy)} {device_kind(strategy)}")
    found = ask("devices")
    if len(set(found)) == 1:
        return
    tell("refused", "")
    with suppress(tf.errors.OpError):  # the first worker has the service: with it, the numbers would be gone
        ask("refused")
    each = ", ".join(
        f"{devices} at {address}" for devices, address in zip(found, cluster.addresses, strict=True)
    )
    raise ConfigError(
        f"strategy: multi_worker needs the same devices in each worker, and they differ: {each}. Show all of "
        "them as many GPUs, or none: CUDA_VISIBLE_DEVICES"
    )


def _count_devices(strategy: tf.distribute.Strategy) -> int:
    """Of this process."""
    return len(strategy.extended.worker_devices)


def _tpu_strategy() -> tf.distribute.Strategy:
    named = any(name in os.environ for name in ("TPU_NAME", "TPU_CONFIG", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS"))
    try:
        # "local" are the TPUs of this machine, for which there is no name to ask for.
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(None if named else "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ConfigError(f"strategy: tpu, but no TPU answers ({reason}). Use strategy: auto.") from None
    return tf.distribute.TPUStrategy(resolver)
