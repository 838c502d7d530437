"""The random states of a process, as values that can be kept and put back.

Private API is used here alone: Keras's global state, which `set_random_seed` resets and nothing public puts
back; of TensorFlow the eager context's `_seed` and `_rng`, which `tf.random.set_seed` resets, and the global
generator, which the public way would make. Tried on Keras 3.15.1 and TensorFlow 2.21.0.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context
from tensorflow.python.ops import stateful_random_ops

_SEED, _GENERATOR = "global_random_seed", "global_seed_generator"


def take_random_state() -> dict[str, Any]:
    """What Python, NumPy, TensorFlow and Keras draw next, as plain values.

    The state inside an operation of somebody's own that draws with a fixed seed is not among it.
    """
    eager: Any = context.context()
    rng = getattr(eager, "_rng", None)
    generator = stateful_random_ops.global_generator  # None until somebody asks for it
    of_keras = global_state.get_global_attribute(_GENERATOR)
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "tensorflow": {
            "seed": eager._seed,
            "rng": None if rng is None else rng.getstate(),
            "generator": None if generator is None else generator.state.numpy(),
            "algorithm": None if generator is None else int(generator.algorithm),
        },
        "keras": {
            "seed": global_state.get_global_attribute(_SEED),
            "generator": None if of_keras is None else of_keras.state.numpy(),
        },
    }


def put_random_state(state: dict[str, Any]) -> None:
    """Draw from here on what was drawn after `take_random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    _put_tensorflow(state["tensorflow"])
    _put_keras(state["keras"])


@contextmanager
def random_state_unchanged() -> Iterator[None]:
    """After the block, Python, NumPy, TensorFlow and Keras draw what they would have drawn without it."""
    state = take_random_state()
    generators = stateful_random_ops.global_generator, global_state.get_global_attribute(_GENERATOR)
    try:
        yield
    finally:
        # The same objects: functions that were traced before the block hold them.
        stateful_random_ops.global_generator = generators[0]
        global_state.set_global_attribute(_GENERATOR, generators[1])
        put_random_state(state)


def _put_tensorflow(state: dict[str, Any]) -> None:
    eager: Any = context.context()
    eager._seed = state["seed"]
    if state["rng"] is not None:
        eager._rng = random.Random()
        eager._rng.setstate(state["rng"])
    if state["generator"] is None:
        stateful_random_ops.global_generator = None
    elif stateful_random_ops.global_generator is None:
        stateful_random_ops.global_generator = tf.random.Generator.from_state(
            state["generator"], state["algorithm"]
        )
    else:
        stateful_random_ops.global_generator.state.assign(state["generator"])


def _put_keras(state: dict[str, Any]) -> None:
    global_state.set_global_attribute(_SEED, state["seed"])
    generator = global_state.get_global_attribute(_GENERATOR)
    if state["generator"] is None:
        global_state.set_global_attribute(_GENERATOR, None)
        return
    if generator is None:
        generator = keras.random.SeedGenerator(seed=0)
        global_state.set_global_attribute(_GENERATOR, generator)
    generator.state.assign(state["generator"])
