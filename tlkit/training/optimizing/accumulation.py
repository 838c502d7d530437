"""One update from the gradients of several batches, which need the memory of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tlkit.errors import ConfigError

if TYPE_CHECKING:
    from tlkit.training.trainable import Trainable

# A part of a batch, and its share of the batch's rows → its loss, and its gradients times that share.
PartStep = Callable[[Any, tf.Tensor], tuple[tf.Tensor, Sequence[Any]]]


def sum_over_parts(
    data: Any, n_parts: int, step: PartStep, weights: Sequence[Any], unit: int = 1
) -> tuple[tf.Tensor, list[Any]]:
    """Run `step` on one part of a batch after another.

    What an update learns from is one large batch of the pipeline, and this cuts it: so no gradient is carried
    from one step to the next, and whatever counts steps (rates, averages, callbacks) counts updates. Keras's
    own accumulation does it the other way round, and fails under `MirroredStrategy` (keras issue 20582).

    Args:
        data: Nested tensors, or None, all with the same number of rows.
        n_parts: Of a batch that has as many rows; a smaller one has fewer parts, and none is empty.
        step: To have no merge of replicas in it: it is the body of a loop.
        weights: What the gradients are of.
        unit: Rows that stay together.

    Returns:
        The mean of the losses over all rows, and the sum of the gradients: dense, and None where `step` gives
        none.
    """
    rows = tf.shape(tf.nest.flatten(data)[0])[0]
    size = _part_size(rows, n_parts, unit)
    known: list[bool] = []

    def body(start: tf.Tensor, loss: tf.Tensor, sums: list[tf.Tensor]) -> tuple[Any, ...]:
        end = tf.minimum(start + size, rows)
        part = _rows(data, start, end)
        share = tf.cast(end - start, tf.float32) / tf.cast(rows, tf.float32)
        part_loss, gradients = step(part, share)
        known[:] = [gradient is not None for gradient in gradients]
        added = [
            total if gradient is None else total + tf.convert_to_tensor(gradient)
            for total, gradient in zip(sums, gradients, strict=True)
        ]
        return end, loss + share * tf.cast(part_loss, tf.float32), added

    zeros = [tf.zeros(weight.shape, weight.dtype) for weight in weights]
    _, loss, sums = tf.while_loop(
        lambda start, *_: start < rows,
        body,
        (tf.constant(0), tf.constant(0.0), zeros),
        parallel_iterations=1,  # or the memory of several parts would be needed at once
    )
    return loss, [total if is_known else None for total, is_known in zip(sums, known, strict=True)]


def cut_batch(data: Any, n_parts: int, unit: int = 1) -> list[Any]:
    """The parts of a batch of eager tensors, as `sum_over_parts` takes them."""
    rows = len(tf.nest.flatten(data)[0])
    size = _part_size(rows, n_parts, unit)
    return [_rows(data, start, start + size) for start in range(0, rows, size)]


def join_batches(parts: Sequence[Any]) -> Any:
    """The batch that they are the parts of."""
    return tf.nest.map_structure(lambda *each: tf.concat(each, axis=0), *parts)


def _part_size(rows: Any, n_parts: int, unit: int) -> Any:
    return -(-rows // (n_parts * unit)) * unit  # rounded up


def _rows(data: Any, start: Any, end: Any) -> Any:
    return tf.nest.map_structure(lambda each: None if each is None else each[start:end], data)


def require_whole_update(run: Trainable) -> None:
    """Raise the ConfigError for an accumulation of more batches than an epoch has."""
    count = run.training.accumulate
    steps = run.count_batches()
    if count > steps:
        raise ConfigError(
            f"training.accumulate: one update should be made of {count} batches, but an epoch of "
            f"{run.n_train:,} examples has {steps}. Use at most {steps}, or a smaller global_batch_size."
        )
