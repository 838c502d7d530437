"""RandAugment with the operations of `keras.layers.RandAugment`, drawn statelessly and example by example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tlkit.preprocessing.draws import fold_in, uniform


def make_rand_augment(num_ops: int, factor: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Each picture through `num_ops` operations, each drawn from all with equal chances and its own strength.

    (samples (N, H, W, 3) in 0–255, seeds int64 (N, 2)) → float32 (N, H, W, 3). Source: Cubuk et al.,
    arXiv:1909.13719; operations and ranges are those of Keras's layer, which, unlike this, draws the same
    operations for all pictures of a batch.
    """
    operations = make_operations(factor)

    def augment(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        choices = tf.cast(tf.floor(uniform(seeds, num_ops) * len(operations)), tf.int32)
        operation_seeds = tf.stack([fold_in(seeds, place) for place in range(num_ops)], axis=1)

        def augment_one(example: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
            picture, chosen, picture_seeds = example

            def apply(place: tf.Tensor, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                branches = [_branch(operation, batch, picture_seeds[place]) for operation in operations]
                changed = tf.ensure_shape(tf.switch_case(chosen[place], branches), batch.shape)
                return place + 1, tf.clip_by_value(changed, 0.0, 255.0)

            start = (tf.constant(0), tf.cast(picture, tf.float32)[None])
            _, batch = tf.while_loop(lambda place, _: place < num_ops, apply, start)
            return batch[0]

        return tf.map_fn(augment_one, (samples, choices, operation_seeds), fn_output_signature=tf.float32)

    return augment


def make_operations(factor: float) -> list[Any]:
    """The operations of `keras.layers.RandAugment(factor=factor)`, as Keras layers, in its order."""
    layer = keras.layers.RandAugment(value_range=(0, 255), factor=factor)
    # A private list, without which the operations would have to be written out here (Keras 3.15.1).
    return [getattr(layer, name) for name in layer._AUGMENT_LAYERS]


class StatelessSeed(keras.random.SeedGenerator):
    """What a Keras layer takes for its seed generator, without a variable: the n-th draw is a function of n.

    `transform` in a Keras layer draws by asking its generator for one seed after another; it gets them from
    a tensor here, so that they are part of the graph.
    """

    def __init__(self, seed: tf.Tensor) -> None:
        # Not the parent's: that makes a variable, which is what this is here to avoid.
        self._base = seed
        self._count = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self._count += 1
        folded = fold_in(self._base[None], self._count)[0]
        return tf.cast(tf.bitwise.bitwise_and(folded, 0xFFFFFFFF), tf.uint32)


def _branch(operation: Any, batch: tf.Tensor, seed: tf.Tensor) -> Callable[[], tf.Tensor]:
    def run() -> tf.Tensor:
        drawn = operation.get_random_transformation(batch, training=True, seed=StatelessSeed(seed))
        return tf.cast(operation.transform_images(batch, drawn, training=True), tf.float32)

    return run
