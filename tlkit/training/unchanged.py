"""Leave models exactly as they were, whatever is tried on them meanwhile.

Private Keras API: `_flatten_layers`. Tried on Keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf


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
