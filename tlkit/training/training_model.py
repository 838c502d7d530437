"""The model that `fit` runs: plain Keras, but for two things that it gets wrong or leaves open.

Private Keras API (`_compute_loss`, `_loss_tracker`, tried on Keras 3.15.1) is used here alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tlkit.results import writing


class TrainingModel(keras.Model):
    """A functional model whose steps weigh every example of a global batch the same.

    Keras averages the means of the replicas. When the last batch of an epoch splits unevenly (4 and 3
    examples), that is not the mean over examples, and the run differs from the same run on one device.
    """

    def train_step(self, data: Any) -> dict[str, Any]:
        n_replicas = self.distribute_strategy.num_replicas_in_sync
        if n_replicas == 1:
            return super().train_step(data)  # type: ignore[no-any-return]
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        n_local = tf.shape(x)[0]
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            # Keras has divided by the number of replicas already: the mean over replicas.
            loss = self._compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
            self._loss_tracker.update_state(loss * n_replicas, sample_weight=n_local)
            n_global = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, n_local)
            share = tf.cast(n_local, loss.dtype) / tf.cast(n_global, loss.dtype)
            loss = self.optimizer.scale_loss(loss * n_replicas * share)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return self.compute_metrics(x, y, outputs, sample_weight=sample_weight)  # type: ignore[no-any-return]

    def save_weights(self, filepath: str | Path, overwrite: bool = True, **kwargs: Any) -> None:
        """Save whole or not at all, for checkpoint callbacks."""
        with writing(Path(filepath)) as temporary:
            super().save_weights(temporary, overwrite=True, **kwargs)
