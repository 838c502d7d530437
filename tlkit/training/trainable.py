"""What all stages of a run share, and where a stage stands among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import keras
import tensorflow as tf

from tlkit.config import CacheConfig, Precision, TrainingConfig, Xla
from tlkit.config.augment import Augmentation
from tlkit.data import BatchPlan, Dataset, Mixing, Share, plan_batches
from tlkit.devices import device_kind
from tlkit.exchange import is_multi_worker, replicas_here
from tlkit.freezing import LayerGroup
from tlkit.heads import Head
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing
from tlkit.preprocessing.views import Views, make_views


@dataclass(frozen=True)
class Trainable:
    """What all stages of a run share.

    Attributes:
        model: Functional model of backbone and head; trained in place.
        groups: The backbone's layer groups, input to output.
        dataset: Its `train` and `validation` splits are used.
        preprocessing: Turns raw pictures into samples and model inputs.
        strategy: Everything is compiled in its scope.
        cache: Whether and where what frozen layers give is stored, under the name `backbone`.
        augmentations: What the augmentation is made of; None for a Python object.
    """

    model: keras.Model
    head: Head
    groups: Sequence[LayerGroup]
    dataset: Dataset
    preprocessing: ImagePreprocessing | TextPreprocessing
    strategy: tf.distribute.Strategy
    training: TrainingConfig
    global_batch_size: int
    batch_norm: Literal["frozen", "train"] = "frozen"
    seed: int = 0
    example_weights: Any = None
    cache: CacheConfig = field(default_factory=lambda: CacheConfig(mode="off"))
    augmentations: Sequence[Augmentation] | None = None
    backbone: str = ""
    deterministic: bool = False
    precision: Precision = "float32"
    xla: Xla = "off"

    @property
    def monitor(self) -> str:
        """The logged value that tells which epoch is best; of training where nothing is held out."""
        return (
            self.head.monitor
            if "validation" in self.dataset.splits
            else self.head.monitor.removeprefix("val_")
        )

    @property
    def views(self) -> Views | None:
        """The versions of each training example that can be stored, if there is a number of them."""
        count = None if self.cache.views == "auto" else self.cache.views
        return make_views(self.preprocessing.augmentation, self.augmentations, count, self.seed)

    @property
    def n_train(self) -> int:
        return len(self.dataset.splits["train"].ids)

    @property
    def update_size(self) -> int:
        """Examples that one update of the weights learns from."""
        return self.global_batch_size * self.training.accumulate

    @property
    def update_tokens(self) -> int | None:
        """Tokens that one update learns from, where batches are counted in tokens."""
        tokens = self.training.batch_tokens
        return None if tokens is None else tokens * self.training.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one epoch."""
        return self.plan_batches(0).steps

    @property
    def mixing(self) -> Mixing | None:
        """What mixes the pictures of a training batch, if anything does."""
        if self.training.mix is None:
            return None
        return Mixing(self.training.mix, self.head.task, self.head.n_outputs or 0)

    def count_batches(self) -> int:
        """Batches in one epoch, of which `training.accumulate` make an update."""
        single = replace(self, training=self.training.model_copy(update={"accumulate": 1}))
        return single.steps_per_epoch

    def plan_batches(self, stage: int) -> BatchPlan:
        """The batches of a stage, by its number: each is what one update learns from."""
        return plan_batches(
            self.dataset.splits["train"],
            self.preprocessing,
            global_batch_size=self.update_size,
            batch_tokens=self.update_tokens,
            replicas=self.n_replicas,
            seed=self.seed,
            stage=stage,
            fill_last=self.on_tpu,
        )

    @property
    def n_replicas(self) -> int:
        return int(self.strategy.num_replicas_in_sync)

    @property
    def on_tpu(self) -> bool:
        """Whether what runs is compiled for every shape of a batch, and runs many steps at once: batches are
        of one size then, and nothing looks between two steps."""
        return device_kind(self.strategy) == "TPU"

    @property
    def share(self) -> Share:
        """What this process reads of every batch."""
        return Share(*replicas_here(self.strategy)) if is_multi_worker(self.strategy) else Share()


@dataclass(frozen=True)
class Place:
    """Where a stage stands in its plan. `first_epoch` counts the epochs of the stages before it."""

    index: int
    n_stages: int
    first_epoch: int
