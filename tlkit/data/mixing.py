"""Mixup and CutMix: each picture of a batch mixed with another of it, and their targets likewise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from tlkit.config.head import Objective
from tlkit.config.training import MixConfig
from tlkit.preprocessing.draws import fold_in, uniform

_DRAW = 2**33  # no augmentation and no choice of a view folds in as much


@dataclass(frozen=True)
class Mixing:
    """What is mixed, and how the targets of an objective are.

    A picture's partner is the next one in the batch, whose order is drawn anew in every epoch; all else
    is drawn by (seed, epoch, id) of the example. Every example has draws of its own.

    Attributes:
        options: Which of the two, and how strongly.
        objective: `classify`, `multilabel` or `regress`.
        n_outputs: Classes, labels or target values.
    """

    options: MixConfig
    objective: Objective
    n_outputs: int

    def __call__(
        self, pictures: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor | None, seeds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Mix a batch.

        Args:
            pictures: float32 (N, H, W, 3).
            targets: Class indices (N,), or what is there of each label or value, (N, …).
            weights: Of the examples, float32 (N,).
            seeds: int64 (N, 2).

        Returns:
            Pictures; targets, float32, of classes as shares (N, classes); weights. With weights, the loss of
            a mixed example is the mix of what its two parts would weigh.
        """
        mixed, share = mix_pictures(pictures, self.options, seeds)
        if self.objective == "classify":
            targets = tf.one_hot(tf.cast(targets, tf.int32), self.n_outputs)
        targets = tf.cast(targets, tf.float32)
        if weights is None:
            return mixed, _blend(targets, _partners(targets), share), None
        own, other = share * weights, (1 - share) * _partners(weights)
        if self.objective != "regress":
            # These losses are linear in the target, so that a heavier label has the larger part in it.
            share = tf.where(own + other > 0, own / tf.maximum(own + other, 1e-12), share)
        return mixed, _blend(targets, _partners(targets), share), own + other


def mix_pictures(pictures: tf.Tensor, options: MixConfig, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pictures, and the share of each that is its own, float32 (N,); the rest is the next picture's."""
    applied, kind, radius, angle, row, column = tf.unstack(uniform(fold_in(seeds, _DRAW), 6), axis=1)
    is_cut = tf.fill(tf.shape(kind), options.mixup is None)
    if options.mixup is not None and options.cutmix is not None:
        is_cut = kind < 0.5
    strength = tf.where(is_cut, options.cutmix or 1.0, options.mixup or 1.0)
    share = symmetric_beta(tf.cast(strength, tf.float64), radius, angle)
    share = tf.where(applied < options.probability, share, 1.0)
    others = _partners(pictures)
    height, width = tf.shape(pictures)[1], tf.shape(pictures)[2]
    side = tf.sqrt(1 - share)
    inside = _span(row, side, height)[:, :, None] & _span(column, side, width)[:, None, :]
    cut_share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=[1, 2])
    cut = tf.where(inside[..., None], others, pictures)
    share = tf.cast(share, tf.float32)
    blended = _blend(pictures, others, share)
    mixed = tf.where(is_cut[:, None, None, None], cut, blended)
    return tf.ensure_shape(mixed, pictures.shape), tf.where(is_cut, cut_share, share)


def symmetric_beta(strength: tf.Tensor, radius: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Beta(a, a) from two numbers in [0, 1), all float64: Bailey's way to Student's t with 2a degrees of
    freedom (Mathematics of Computation 62, 1994), from which it follows without rejecting any draw."""
    cosine = tf.cos(2 * math.pi * angle)
    power = radius ** (1 / strength)
    return 0.5 + 0.5 * cosine / tf.sqrt(cosine**2 + power / (1 - power))


def _span(center: tf.Tensor, share: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Which pixels of an axis are within `share` of its length around a centre: bool (N, length)."""
    size = tf.cast(length, tf.float64)
    places = tf.range(length)[None, :]
    middle, half = center * size, share * size / 2
    first = tf.cast(tf.round(tf.maximum(middle - half, 0.0)), tf.int32)[:, None]
    end = tf.cast(tf.round(tf.minimum(middle + half, size)), tf.int32)[:, None]
    return (places >= first) & (places < end)


def _blend(own: tf.Tensor, others: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    share = tf.reshape(share, tf.concat([tf.shape(share), tf.ones([tf.rank(own) - 1], tf.int32)], axis=0))
    return share * own + (1 - share) * others


def _partners(values: tf.Tensor) -> tf.Tensor:
    return tf.roll(values, -1, axis=0)
