"""Build a model as if it were the first of the process: layer names and random draws do not depend on it."""

from __future__ import annotations

import collections
import random
from collections.abc import Iterator
from contextlib import contextmanager

# Private: Keras counts automatic layer names ("conv2d_5") in global state, and its one public reset also
# drops every other model's state. Several keras.applications name layers automatically, and layer groups
# and weight paths need names that do not shift on a second build. Tried on Keras 3.15.1.
from keras.src.backend.common import global_state

_COUNTERS = "object_name_uids"


@contextmanager
def fresh_names() -> Iterator[None]:
    """Automatic layer names start at zero inside, and continue as before after."""
    before = global_state.get_global_attribute(_COUNTERS)
    global_state.set_global_attribute(_COUNTERS, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(_COUNTERS, before)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Initialisers without a seed of their own draw from `seed`; Python's random state is put back after.

    Keras takes such seeds from Python's `random` module, which is what `keras.utils.set_random_seed` sets.
    """
    before = random.getstate()
    if seed is not None:
        random.seed(seed)
    try:
        yield
    finally:
        if seed is not None:
            random.setstate(before)
