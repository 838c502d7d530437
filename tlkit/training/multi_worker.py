"""What `fit` needs where several workers share it, and plain Keras does not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tlkit.errors import TrainingError
from tlkit.exchange import fingerprint, gather, is_multi_worker, replicas_here, sum_over_workers
from tlkit.training.freeze import moving_statistics


class MultiWorkerFit(keras.Model):
    """Keras's `fit` for the workers of `MultiWorkerMirroredStrategy`; for any other strategy as it is.

    Keras's own fails there (keras issue 20585, tried on Keras 3.15.1): it averages what the replicas log
    along an axis that numbers do not have, and it builds a model from the mean of their batches, whose sizes
    may differ. Here the first replica's log is taken, and its batch. What is logged at the end of an epoch
    counts every example of all workers, because metrics are added up over the replicas when they are read;
    while an epoch runs, the metrics beside the loss are those of the replica's own examples.

    To be dropped when `test_plain_keras_still_fails_with_several_workers` fails.
    """

    train_function: Any
    test_function: Any
    is_in_epoch: bool = False
    _stops: bool = False

    @property
    def was_stopped(self) -> bool:
        """Whether a callback, in any of the workers, has ended the stage, now or at the end of the epoch."""
        return bool(gather(self.distribute_strategy, int(self._stops)).any())

    @property
    def stop_training(self) -> bool:
        """Whether a callback has ended the stage. With `WholeEpochs`, only the end of an epoch tells."""
        return self._stops and not self.is_in_epoch

    @stop_training.setter
    def stop_training(self, stops: bool) -> None:
        self._stops = stops

    def fit(self, x: Any = None, y: Any = None, *, validation_data: Any = None, **options: Any) -> Any:
        """With several workers, pipelines give each replica of this process its part of a batch in turn."""
        if is_multi_worker(self.distribute_strategy):
            if validation_data is not None:
                count = replicas_here(self.distribute_strategy)[1]
                options["validation_steps"] = int(validation_data.cardinality()) // count
                validation_data = self._hand_out(validation_data)
            x = self._hand_out(x)
        return super().fit(x, y, validation_data=validation_data, **options)

    def make_train_function(self, force: bool = False) -> None:
        if not is_multi_worker(self.distribute_strategy):
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = self._on_replicas(self.train_step)

    def make_test_function(self, force: bool = False) -> None:
        if not is_multi_worker(self.distribute_strategy):
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = self._on_replicas(self.test_step)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if is_multi_worker(self.distribute_strategy) and iterator is not None:
            data_batch = next(self._first_of_all(next(batches)) for _, _, batches in iterator)
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _on_replicas(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def one_step(iterator: Any) -> Any:
            return self._first_of_all(self.distribute_strategy.run(step, args=(next(iterator),)))

        plain = tf.autograph.experimental.do_not_convert(one_step)
        function: Callable[[Any], Any] = tf.function(plain, reduce_retracing=True)
        return function

    def _first_of_all(self, values: Any) -> Any:
        """Of what each replica here has, the first one's."""
        return tf.nest.map_structure(
            lambda value: self.distribute_strategy.experimental_local_results(value)[0], values
        )

    def _hand_out(self, batches: tf.data.Dataset) -> Any:
        return self.distribute_strategy.distribute_datasets_from_function(lambda _: batches)


class WholeEpochs(keras.callbacks.Callback):
    """Lets a stage that a callback ends in the middle of an epoch go on to the end of it, where all workers
    tell each other: one that stopped alone would leave the others waiting for its next step.

    To come before all callbacks.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.is_in_epoch = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.is_in_epoch = False


class SharedStatistics(keras.callbacks.Callback):
    """The statistics of BatchNorm as the mean over all replicas: each moves them by its own examples.

    To come before all callbacks that look at weights. Without it the workers would end with different ones.
    """

    def on_test_begin(self, logs: Any = None) -> None:
        self._share()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._share()

    def _share(self) -> None:
        moving = moving_statistics(self.model)
        if not moving:
            return
        strategy = self.model.distribute_strategy
        copies = [strategy.experimental_local_results(weight.value) for weight in moving]
        here = [np.sum([copy.numpy().astype("float64") for copy in of_one], axis=0) for of_one in copies]
        flat = np.concatenate([values.reshape(-1) for values in here])
        mean = sum_over_workers(strategy, flat) / strategy.num_replicas_in_sync
        parts = np.split(mean, np.cumsum([values.size for values in here])[:-1])
        for of_one, part in zip(copies, parts, strict=True):
            for copy in of_one:
                copy.assign(part.reshape(copy.shape).astype(copy.dtype.as_numpy_dtype))


def check_same_weights(model: keras.Model, strategy: tf.distribute.Strategy, stage: str) -> None:
    """Compare the weights of all workers after a stage.

    Raises:
        TrainingError: They are not the same, bit for bit.
    """
    if is_multi_worker(strategy) and len(set(gather(strategy, _hash_weights(model)))) > 1:
        raise TrainingError(
            f"After stage {stage!r} the workers hold different weights. Has the model a layer that learns "
            "without gradients, or a callback that does not do the same on every worker?"
        )


def _hash_weights(model: keras.Model) -> int:
    return fingerprint(*(weight.numpy().tobytes() for weight in model.weights))
