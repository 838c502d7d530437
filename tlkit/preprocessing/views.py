"""A fixed number of augmented versions of each example, to be made once and drawn among."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tlkit.config.augment import Augmentation, RandomFlip
from tlkit.preprocessing.augment import choose_flips, flip
from tlkit.preprocessing.draws import fold_in, uniform

PLAIN = "plain"
_DRAW = 2**32  # no augmentation of a list folds in as much


@dataclass(frozen=True)
class Views:
    """Versions of an example.

    Attributes:
        names: One for each; two of one name are the same for the same example.
        choose: Seeds, integers (N, 2), as `augment` takes them → the number of a view, int64 (N,).
        make: (samples, number, hashes) → that view of each; `hashes` are int64 (N,), of the examples' ids.
        by_id: Whether a view depends on the example's id, too, and not on its content alone.
    """

    names: tuple[str, ...]
    choose: Callable[[tf.Tensor], tf.Tensor]
    make: Callable[[Any, int, tf.Tensor], Any]
    by_id: bool = False

    def __len__(self) -> int:
        return len(self.names)


def plain_view() -> Views:
    """Each example as it is."""
    return Views((PLAIN,), lambda seeds: tf.zeros_like(seeds[:, 0]), lambda samples, *_: samples)


def all_flips(options: RandomFlip) -> Views:
    """Every way in which pictures may be flipped; chosen as the augmentation itself would flip them."""
    ways = list(choose_flips(options, tf.zeros((1, 2), tf.int64)))
    combinations = [
        [way for way, is_on in zip(ways, bits, strict=True) if is_on]
        for bits in itertools.product((False, True), repeat=len(ways))
    ]

    def choose(seeds: tf.Tensor) -> tf.Tensor:
        number = tf.zeros_like(seeds[:, 0])
        for is_flipped in choose_flips(options, fold_in(seeds, 0)).values():
            number = number * 2 + tf.cast(is_flipped, number.dtype)
        return number

    def make(samples: Any, number: int, hashes: tf.Tensor) -> Any:
        del hashes
        for way in combinations[number]:
            samples = flip(samples, way)
        return samples

    return Views(tuple("+".join(each) or PLAIN for each in combinations), choose, make)


def drawn_views(
    augment: Callable[[Any, tf.Tensor], Any], options: Sequence[Augmentation], count: int, seed: int
) -> Views:
    """`count` versions of each example, drawn by the seed."""
    described = ",".join(f"{type(each).__name__}({each!r})" for each in options)

    def choose(seeds: tf.Tensor) -> tf.Tensor:
        return tf.cast(uniform(fold_in(seeds, _DRAW), 1)[:, 0] * count, tf.int64)

    def make(samples: Any, number: int, hashes: tf.Tensor) -> Any:
        # Epochs have numbers from 0 up: none shares its draws with a view.
        draw = tf.fill(tf.shape(hashes), tf.constant(seed * 2**31 - number - 1, tf.int64))
        return augment(samples, tf.stack([draw, hashes], axis=1))

    names = tuple(f"{described} seed {seed} view {number}" for number in range(count))
    return Views(names, choose, make, by_id=True)


def make_views(
    augment: Callable[[Any, tf.Tensor], Any] | None,
    options: Sequence[Augmentation] | None,
    count: int | None,
    seed: int,
) -> Views | None:
    """The views that training draws among; None where there is no number of them that would be the same.

    Args:
        augment: The augmentation of the preprocessing, if there is one.
        options: What it is made of; None for a Python object, whose draws do not repeat.
        count: How many views; None: all that there are, which flips alone have. Of these there are no more.
    """
    if augment is None:
        return plain_view()
    if options is None:
        return None
    if count == 1:
        return plain_view()
    only = options[0] if len(options) == 1 else None
    flips = all_flips(only) if isinstance(only, RandomFlip) else None
    if count is None or (flips is not None and count >= len(flips)):
        return flips
    return drawn_views(augment, options, count, seed)
