"""Whether TensorFlow's operations are deterministic.

Private API is used here alone: in public, TensorFlow can be told to be deterministic, but neither to stop
being so, nor asked whether it is. Tried on TensorFlow 2.21.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.framework import config


@contextmanager
def determinism_unchanged() -> Iterator[None]:
    """After the block, operations are as deterministic as before it."""
    was = config.is_op_determinism_enabled()
    try:
        yield
    finally:
        if was:
            config.enable_op_determinism()
        else:
            config.disable_op_determinism()
