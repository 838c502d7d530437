"""Leave models and random states exactly as they were, whatever is tried on them meanwhile.

Private API is used here alone: Keras's `_flatten_layers` and its global state, which `set_random_seed` resets
and nothing public puts back; of TensorFlow the eager context's `_seed` and `_rng`, which `tf.random.set_seed`
resets, and the global generator, which the public way would make.
Tried on Keras 3.15.1 and TensorFlow 2.21.0.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context
from tensorflow.python.ops import stateful_random_ops

_KERAS = ("global_random_seed", "global_seed_generator")


@contextmanager
def model_unchanged(model: keras.Model, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """After the block, weights, statistics, random states and what is trainable are bit for bit as before."""
    layers = list(model._flatten_layers())  # parents before the layers inside them
    trainable = [layer.trainable for layer in layers]
    with variables_unchanged(model.variables, strategy):
        try:
            yield
        finally:
            for layer, was in zip(layers, trainable, strict=True):
                layer.trainable = was


@contextmanager
def variables_unchanged(
    variables: Sequence[keras.Variable], strategy: tf.distribute.Strategy
) -> Iterator[None]:
    """After the block, the variables are bit for bit as before, on every replica."""
    copies = [copy for variable in variables for copy in strategy.experimental_local_results(variable.value)]
    before = [copy.numpy() for copy in copies]
    try:
        yield
    finally:
        for copy, value in zip(copies, before, strict=True):
            copy.assign(value)


@contextmanager
def random_state_unchanged() -> Iterator[None]:
    """After the block, Python, NumPy, TensorFlow and Keras draw what they would have drawn without it.

    What cannot be put back is the state inside an operation of somebody's own that draws with a fixed seed.
    """
    eager: Any = context.context()
    python, numpy = random.getstate(), np.random.get_state()
    seed, rng = eager._seed, deepcopy(getattr(eager, "_rng", None))
    generator = stateful_random_ops.global_generator  # None until somebody asks for it
    generated = None if generator is None else generator.state.numpy()
    of_keras = [global_state.get_global_attribute(name) for name in _KERAS]
    drawn = None if of_keras[1] is None else of_keras[1].state.numpy()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        eager._seed = seed
        if rng is not None:
            eager._rng = rng
        stateful_random_ops.global_generator = generator
        if generator is not None:
            generator.state.assign(generated)
        for name, value in zip(_KERAS, of_keras, strict=True):
            global_state.set_global_attribute(name, value)
        if drawn is not None:
            of_keras[1].state.assign(drawn)
