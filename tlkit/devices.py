"""Which devices a run uses, as a tf.distribute strategy."""

from __future__ import annotations

import functools

import tensorflow as tf

from tlkit.errors import ConfigError


def make_strategy(spec: str = "auto") -> tf.distribute.Strategy:
    """Build the strategy that a run creates and compiles everything in.

    Args:
        spec: `auto` (mirrored for several GPUs, else the GPU, else the CPU), `cpu`, `gpu`, `mirrored` (all
            GPUs, or without a GPU all logical CPU devices) or `tpu` (untested: no TPU was at hand).

    Raises:
        ConfigError: This machine does not have what was asked for.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if spec == "auto":
        spec = "mirrored" if len(gpus) > 1 else "gpu" if gpus else "cpu"
    match spec:
        case "cpu":
            return tf.distribute.OneDeviceStrategy("/cpu:0")
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
    raise ConfigError(f"Unknown strategy {spec!r}. Allowed: auto, cpu, gpu, mirrored, tpu.")


@functools.cache
def _mirrored(*devices: str) -> tf.distribute.MirroredStrategy:
    """The one of this process: a second one would number its reductions from the start again, and where its
    model has other shapes, TensorFlow 2.21 stops with a shape mismatch between the two."""
    return tf.distribute.MirroredStrategy(list(devices))


def _tpu_strategy() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"strategy: tpu, but no TPU answers ({reason}). Use strategy: auto.") from None
    return tf.distribute.TPUStrategy(resolver)
