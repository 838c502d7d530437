"""What a dry run measures."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from test_feature_cache import OFF, cached_run

from tlkit.config import CacheConfig
from tlkit.plans import Stage
from tlkit.training import time_stage
from tlkit.training.cache import features as cache_features
from tlkit.training.freeze import apply_freeze
from tlkit.training.optimizing.accumulation import cut_batch, join_batches


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("cache", [OFF, CacheConfig(mode="memory")], ids=["raw", "features"])
def test_no_more_pictures_are_computed_at_once_than_in_training(cache, monkeypatch):
    monkeypatch.setattr(cache_features, "BATCH_SIZE", 2)
    run = cached_run(cache, batch_size=4, accumulate=3)
    head, seen = Stage("head", "head", 2, 0.01), []
    apply_freeze(run.model, run.groups, head, run.batch_norm)

    def count(rows):
        seen.append(int(rows))
        return rows

    def call(inputs):
        with tf.control_dependencies([tf.numpy_function(count, [tf.shape(inputs)[0]], tf.int32)]):
            return tf.identity(inputs)

    stem = next(layer for layer in run.model._flatten_layers() if layer.name == "stem_relu")
    monkeypatch.setattr(stem, "call", call)
    timed = time_stage(run, head)
    assert timed.cache.mode == cache.mode
    assert timed.seconds > 0
    assert max(seen) == 4


def test_a_batch_is_the_join_of_its_parts():
    batch = ({"ids": tf.range(14), "mask": tf.reshape(tf.range(28), (14, 2))}, tf.range(14))
    parts = cut_batch(batch, 3, unit=2)
    assert [len(targets) for _, targets in parts] == [6, 6, 2]
    for ours, expected in zip(tf.nest.flatten(join_batches(parts)), tf.nest.flatten(batch), strict=True):
        np.testing.assert_array_equal(ours, expected)
