"""Augmentation of training samples, drawn statelessly: an example's change is a function of its seeds.

Names, arguments and pictures are those of Keras's layers; the draws are not, because Keras's layers carry
random state from batch to batch, which a parallel pipeline consumes in whatever order it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tlkit.config.augment import (
    Augmentation,
    GaussianNoise,
    RandAugment,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    RandomZoom,
)
from tlkit.errors import ConfigError
from tlkit.preprocessing import affine
from tlkit.preprocessing.draws import fold_in, uniform, uniform_between
from tlkit.preprocessing.rand_augment import make_rand_augment

# (samples uint8 (N, H, W, 3), seeds int64 (N, 2)) → samples uint8 (N, H, W, 3)
Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# The same between two steps, where values are float32 in 0–255 once a step has made them so.
Step = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Matrices = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


_AXES = {"horizontal": 2, "vertical": 1}


def make_augment(augmentations: Sequence[Augmentation]) -> Augment:
    """The augmentations, in their order, as one function over a batch, for use in a graph.

    It takes samples, uint8 (N, H, W, 3), and seeds, integers (N, 2): for each example a pair that no other
    example in no other epoch has, such as (run seed and epoch, example id). What comes out for an example
    depends on its sample and its pair alone. Values are rounded once, at the end.
    """
    steps = _make_steps(augmentations)

    def augment(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        shape = samples.shape
        for step in steps:
            samples = step(samples, seeds)
        return tf.ensure_shape(_to_sample(samples), shape)

    # There is no Python control flow over tensors in it: converting it would only make tracing slower.
    unconverted: Augment = tf.autograph.experimental.do_not_convert(augment)
    return unconverted


def from_callable(function: Callable[..., Any]) -> Augment:
    """A Keras layer or a function over a batch of uint8 pictures, as an augmentation.

    It must keep the shape (N, H, W, 3) and give values in 0–255; floats are rounded. What it draws is up to
    it: a Keras layer carries its random state from batch to batch, so its draws do not repeat between runs.
    """

    def augment(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        del seeds  # a function over pictures alone has no use for them
        is_layer = isinstance(function, keras.layers.Layer)
        changed = tf.convert_to_tensor(function(samples, training=True) if is_layer else function(samples))
        if not changed.shape.is_compatible_with(samples.shape):
            raise ConfigError(
                f"augment: {function!r} must keep the shape {tuple(samples.shape)}, "
                f"received {tuple(changed.shape)}."
            )
        return tf.ensure_shape(_to_sample(changed), samples.shape)

    return augment


def _make_steps(augmentations: Sequence[Augmentation]) -> list[Step]:
    """One step per augmentation; neighbours that move the picture and fill alike share one."""

    def fill_or_place(numbered: tuple[int, Augmentation]) -> tuple[str, float] | int:
        place, options = numbered
        if type(options) not in _MOVING:
            return place
        return getattr(options, "fill_mode", "reflect"), getattr(options, "fill_value", 0.0)

    steps: list[Step] = []
    for fill, neighbours in itertools.groupby(enumerate(augmentations), fill_or_place):
        if isinstance(fill, tuple):
            movements = [(place, _MOVING[type(options)](options)) for place, options in neighbours]
            steps.append(_moving(movements, *fill))
        else:
            steps += [_with_seeds_of(place, _OTHERS[type(options)](options)) for place, options in neighbours]
    return steps


def _with_seeds_of(place: int, step: Step) -> Step:
    """The step with seeds of its own: no two augmentations of a list share their draws."""
    return lambda samples, seeds: step(samples, fold_in(seeds, place))


def _moving(group: Sequence[tuple[int, Matrices]], fill_mode: str, fill_value: float) -> Step:
    """Several movements as one, so that the picture is interpolated once."""

    def step(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        height, width = tf.shape(samples)[1], tf.shape(samples)[2]
        # A matrix leads from the result back to its origin, so the first movement comes first here, too.
        matrices = tf.eye(3, batch_shape=tf.shape(samples)[:1], dtype=tf.float64)
        for place, make_matrices in group:
            matrices = matrices @ make_matrices(fold_in(seeds, place), height, width)
        return affine.warp(samples, matrices, fill_mode, fill_value)

    return step


def _rotation(options: RandomRotation) -> Matrices:
    def matrices(seeds: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        (turns,) = uniform_between(seeds, [_range(options.factor)])
        return affine.rotation(turns, height, width)

    return matrices


def _zoom(options: RandomZoom) -> Matrices:
    def matrices(seeds: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        factors = [options.height_factor, options.width_factor or options.height_factor]
        vertical, horizontal = uniform_between(seeds, [_range(factor) for factor in factors])
        if options.width_factor is None:
            horizontal = vertical
        return affine.zoom(1 + vertical, 1 + horizontal, height, width)

    return matrices


def _translation(options: RandomTranslation) -> Matrices:
    def matrices(seeds: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        factors = [_range(options.height_factor), _range(options.width_factor)]
        down, right = uniform_between(seeds, factors)
        return affine.translation(down * tf.cast(height, tf.float64), right * tf.cast(width, tf.float64))

    return matrices


def _crop(options: RandomCrop) -> Matrices:
    def matrices(seeds: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        area, up, left = uniform_between(seeds, [options.scale, (-1.0, 1.0), (-1.0, 1.0)])
        side = tf.sqrt(area)
        # Half of what is left out lies on either side: the square may move by as much.
        down = up * (1 - side) / 2 * tf.cast(height, tf.float64)
        right = left * (1 - side) / 2 * tf.cast(width, tf.float64)
        return affine.translation(down, right) @ affine.zoom(side, side, height, width)

    return matrices


def _flip(options: RandomFlip) -> Step:
    def step(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        for way, is_flipped in choose_flips(options, seeds).items():
            samples = _flip_some(samples, is_flipped, way)
        return samples

    return step


def _flip_some(samples: tf.Tensor, is_flipped: tf.Tensor, way: str) -> tf.Tensor:
    # Whole pictures are moved about: choosing pixel by pixel (tf.where) gives the same and takes ten times as
    # long.
    rows = tf.range(tf.shape(samples)[0])
    kept, turned = tf.dynamic_partition(rows, tf.cast(is_flipped, tf.int32), 2)
    both = tf.concat([tf.gather(samples, kept), flip(tf.gather(samples, turned), way)], axis=0)
    return tf.gather(both, tf.math.invert_permutation(tf.concat([kept, turned], axis=0)))


def choose_flips(options: RandomFlip, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
    """Which examples are flipped, bool (N,), for each way in which they may be."""
    chosen = uniform(seeds, 2) < 0.5
    return {way: chosen[:, column] for column, way in enumerate(_AXES) if way in options.mode}


def flip(samples: tf.Tensor, way: str) -> tf.Tensor:
    return tf.reverse(samples, [_AXES[way]])


def _contrast(options: RandomContrast) -> Step:
    below, above = options.factor if isinstance(options.factor, tuple) else (options.factor, options.factor)

    def step(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        (factor,) = uniform_between(seeds, [(1 - below, 1 + above)])
        # Sums of whole numbers in float64 are exact, so they do not depend on how the batch is divided.
        levels = tf.round(tf.cast(samples, tf.float64) * 256)
        mean = tf.cast(tf.reduce_mean(levels, axis=[1, 2], keepdims=True) / 256, tf.float32)
        return _clip((tf.cast(samples, tf.float32) - mean) * _per_picture(factor) + mean)

    return step


def _brightness(options: RandomBrightness) -> Step:
    def step(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        (share,) = uniform_between(seeds, [_range(options.factor)])
        return _clip(tf.cast(samples, tf.float32) + _per_picture(share * 255))

    return step


def _noise(options: GaussianNoise) -> Step:
    def step(samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(samples)[1:]
        noise = tf.map_fn(
            lambda seed: tf.random.stateless_normal(shape, seed, stddev=options.stddev, alg="philox"),
            seeds,
            fn_output_signature=tf.float32,
        )
        return _clip(tf.cast(samples, tf.float32) + noise)

    return step


def _rand_augment(options: RandAugment) -> Step:
    return make_rand_augment(options.num_ops, options.factor)


def _range(factor: float | tuple[float, float]) -> tuple[float, float]:
    return factor if isinstance(factor, tuple) else (-abs(factor), abs(factor))


def _per_picture(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)[:, None, None, None]


def _clip(values: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(values, 0.0, 255.0)


def _to_sample(values: tf.Tensor) -> tf.Tensor:
    if values.dtype == tf.uint8:
        return values
    return tf.cast(_clip(tf.round(tf.cast(values, tf.float32))), tf.uint8)


_MOVING: dict[type[Augmentation], Callable[[Any], Matrices]] = {
    RandomRotation: _rotation,
    RandomZoom: _zoom,
    RandomTranslation: _translation,
    RandomCrop: _crop,
}

_OTHERS: dict[type[Augmentation], Callable[[Any], Step]] = {
    RandomFlip: _flip,
    RandomContrast: _contrast,
    RandomBrightness: _brightness,
    GaussianNoise: _noise,
    RandAugment: _rand_augment,
}
