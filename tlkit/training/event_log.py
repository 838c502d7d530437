"""What TensorBoard shows, and what is said where it cannot be written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tlkit.errors import StorageError

_OPERATION = re.compile(r"\{\{.*?\}\} ?|\s*\[Op:.*")  # what TensorFlow says about itself


class EventLog(keras.callbacks.TensorBoard):
    """Keras's own, but for its errors: for a disk that is full TensorFlow has the one that it has for memory
    that ran out."""

    def on_train_begin(self, logs: Any = None) -> None:
        with self._storage_errors():
            super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with self._storage_errors():
            super().on_epoch_end(epoch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        with self._storage_errors():
            super().on_test_begin(logs)

    def on_test_end(self, logs: Any = None) -> None:
        with self._storage_errors():
            super().on_test_end(logs)

    def on_train_end(self, logs: Any = None) -> None:
        with self._storage_errors():
            super().on_train_end(logs)

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            reason = _OPERATION.sub("", error.message.splitlines()[0]).rstrip(".")
            raise StorageError(f"Cannot write {self.log_dir}: {reason}.") from None
