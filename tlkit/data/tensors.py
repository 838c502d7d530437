"""Arrays as tensors over the same memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tlkit.features import ALIGNMENT


def as_tensor(values: npt.NDArray[Any]) -> tf.Tensor:
    """An array as a tensor over the same memory, which a mapped file keeps on the disk.

    Where it begins at an address that TensorFlow cannot take, a copy.
    """
    with tf.device("CPU:0"):
        if not values.size or values.ctypes.data % ALIGNMENT:
            return tf.constant(values)
        return tf.experimental.dlpack.from_dlpack(values.__dlpack__())


def aligned_empty(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Uninitialised memory that `as_tensor` takes as it is."""
    size = int(np.prod(shape, dtype=np.int64))
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].reshape(shape)
