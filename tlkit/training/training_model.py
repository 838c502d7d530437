"""The model that `fit` runs: plain Keras, but for a few things that it gets wrong or leaves open.

Private Keras API (`_compute_loss`, `_loss_tracker`, `_maybe_symbolic_build`, `_symbolic_build`, tried on
Keras 3.15.1) is used here alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tlkit.config.head import Objective
from tlkit.heads import WordLoss
from tlkit.model import stored_bytes
from tlkit.results import writing
from tlkit.training.cache.boundary import FEATURES, Parts
from tlkit.training.compute.precision import Casting
from tlkit.training.multi_worker import MultiWorkerFit
from tlkit.training.optimizing.accumulation import sum_over_parts


class TrainingModel(MultiWorkerFit):
    """A functional model whose steps weigh every example of a global batch the same.

    Keras averages the means of the replicas. When the last batch of an epoch splits unevenly (4 and 3
    examples), that is not the mean over examples, and the run differs from the same run on one device.
    """

    parts: Parts | None = None
    """Where a part of the model is frozen: that part, which runs as it does for predictions, and the rest."""

    accumulate: int = 1
    """Into how many parts, one after the other, a step cuts its batch."""
    row_unit: int = 1
    """Rows of a batch that stay together."""

    goes_on: bool = False
    """Whether the next stage is the rest of this one, so that it ends with its last weights, not its best."""

    mixed: Objective | None = None
    """What the targets of its training are a mix of, if they are one."""

    train_function: Any
    to_skip: int = 0
    """How many steps `fit` has behind it where it begins in the middle of an epoch."""

    casting: Casting | None = None
    """What computes in another precision than float32, if anything does."""

    @classmethod
    def of(cls, model: keras.Model, parts: Parts | None) -> TrainingModel:
        """A training model over the layers of `model`. With `parts` it takes what the lower gives, too."""
        made: TrainingModel = cls(model.input, model.output, name=model.name)
        made.parts = parts
        return made

    @property
    def input_spec(self) -> Any:
        return super().input_spec if self.parts is None else None  # there are two kinds of inputs

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self.casting is None:
            return self._answer(inputs, training, mask)
        with self.casting.applied():
            outputs = self._answer(inputs, training, mask)
        return keras.tree.map_structure(lambda output: keras.ops.cast(output, "float32"), outputs)

    def _answer(self, inputs: Any, training: bool | None, mask: Any) -> Any:
        if self.parts is None:
            return super().call(inputs, training=training, mask=mask)
        is_boundary = isinstance(inputs, dict) and FEATURES in inputs
        boundary = inputs if is_boundary else self.parts.lower(inputs, training=False)
        return self.parts.upper(boundary, training=training)

    def make_train_function(self, force: bool = False) -> None:
        super().make_train_function(force)
        if self.to_skip:
            self.train_function = self._after(self.to_skip // self.steps_per_execution, self.train_function)
            self.to_skip = 0

    def _after(self, count: int, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`step`, of which the first `count` calls do nothing."""
        calls, metrics = itertools.count(), functools.cache(self.get_metrics_result)
        return lambda iterator: metrics() if next(calls) < count else step(iterator)

    def train_step(self, data: Any) -> dict[str, Any]:
        n_replicas = self.distribute_strategy.num_replicas_in_sync
        if self.accumulate > 1:
            return self._accumulating_step(data)
        if n_replicas == 1:
            return super().train_step(data)  # type: ignore[no-any-return]
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        n_local = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            # Keras has divided by the number of replicas already, for its mean over replicas.
            loss = self._compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
            total = loss * n_replicas * n_local
            replicas = tf.distribute.get_replica_context()
            sums = replicas.all_reduce(
                tf.distribute.ReduceOp.SUM, tf.stack([n_local, tf.stop_gradient(total)])
            )
            n_global = sums[0]
            loss = self.optimizer.scale_loss(total / n_global)
        # The same value and weight on every replica, so that what is logged at a step is the global mean.
        self._loss_tracker.update_state(sums[1] / n_global, sample_weight=n_global / n_replicas)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return self.compute_metrics(x, y, outputs, sample_weight=sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Of mixed targets by the label, or labels, that have the larger part."""
        if self.mixed == "multilabel":
            y = tf.cast(y >= 0.5, tf.float32)
        if self.mixed == "classify" and len(y.shape) == 2 and y.shape[-1] > 1:
            y = tf.argmax(y, axis=-1)
        return super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)  # type: ignore[no-any-return]

    def _accumulating_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        n_replicas = self.distribute_strategy.num_replicas_in_sync
        n_local = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)
        weights = self.trainable_weights
        loss_of_words = self.loss if isinstance(self.loss, WordLoss) else None
        scale = None if loss_of_words is None else loss_of_words.scale(y)

        def step(part: Any, share: tf.Tensor) -> tuple[Any, Any]:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(part)
            with tf.GradientTape() as tape:
                outputs = self(x, training=True)
                loss = self._compute_loss(
                    x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True
                )
                loss = loss * n_replicas  # Keras has divided by it
                scaled = self.optimizer.scale_loss(loss * tf.cast(share, loss.dtype))
            self.compute_metrics(x, y, outputs, sample_weight=sample_weight)
            return loss, tape.gradient(scaled, weights)

        with nullcontext() if loss_of_words is None else loss_of_words.scaled(scale):
            loss, gradients = sum_over_parts(data, self.accumulate, step, weights, self.row_unit)
        n_global = n_local
        if n_replicas > 1:
            replicas = tf.distribute.get_replica_context()
            sums = replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack([n_local, loss * n_local]))
            n_global, loss = sums[0], sums[1] / sums[0]
            gradients = [
                None if each is None else each * tf.cast(n_local / n_global, each.dtype) for each in gradients
            ]
        self._loss_tracker.update_state(loss, sample_weight=n_global / n_replicas)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self.get_metrics_result()  # type: ignore[no-any-return]

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Build what `compile` left open, once.

        Keras does it again before every validation, from the mean of the first batch over the replicas: that
        fails where the batch splits unevenly, as that of a small validation split does.
        """
        if not self._compile_loss.built:
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def build_metrics(self, batch: Any) -> None:
        """Make the variables of loss and metrics, which Keras else makes in the first step."""
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=batch)

    def save_weights(self, filepath: str | Path, overwrite: bool = True, **kwargs: Any) -> None:
        """Save whole or not at all, for checkpoint callbacks; without the optimizer's state."""
        plain = keras.Model(self.input, self.output)
        with writing(Path(filepath), stored_bytes(plain)) as temporary:
            plain.save_weights(temporary, overwrite=True, **kwargs)
