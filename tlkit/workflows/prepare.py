"""The steps before training that a run and its dry run share: config → model, data, groups, stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tlkit import zoo
from tlkit.backbones import Backbone, load
from tlkit.config import PreprocessingConfig, RunConfig
from tlkit.data import Dataset, longest_side, resolve_sample_split
from tlkit.data import load as load_data
from tlkit.devices import make_strategy
from tlkit.freezing import group_layers
from tlkit.heads import example_weights, make_head
from tlkit.model import build_model
from tlkit.plans import Stage, make_plan
from tlkit.preprocessing import ImagePreprocessing, default_image_size, from_callable, make_preprocessing
from tlkit.progress import spinner
from tlkit.results import RunFolder
from tlkit.training import Trainable, choose_batch_size
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.run import load_run
from tlkit.zoo import ZooEntry


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train. `config` has every `auto` resolved that decides about numbers."""

    config: RunConfig
    entry: ZooEntry
    dataset: Dataset
    preprocessing: ImagePreprocessing
    trainable: Trainable
    stages: tuple[Stage, ...]


def prepare(config: RunConfig, objects: PythonObjects | None = None) -> Prepared:
    """Load, check and build everything that a run needs. Nothing is written.

    Raises:
        TlkitError: Whatever is wrong with config, data, backbone or devices, before any training.
    """
    objects = objects or PythonObjects()
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    entry = find_entry(config.backbone)
    strategy = make_strategy(config.strategy)
    preprocessing = make_preprocessing(entry.input, _with_image_size(config, entry, objects))
    if objects.augment is not None:
        preprocessing = replace(preprocessing, augmentation=from_callable(objects.augment))
        size = preprocessing.image_size
        # Tried once, so that a mistake in it is found before anything is written.
        preprocessing.augment(tf.zeros((2, size, size, 3), tf.uint8), tf.zeros((2, 2), tf.int64))
    dataset = load_data(
        config.data, config.task, seed=config.seed, preprocessing=preprocessing, source=objects.data
    )
    train = dataset.splits["train"]
    classes = dataset.manifest.classes
    n_outputs = (
        len(classes) if classes is not None else train.targets.reshape(len(train.targets), -1).shape[1]
    )
    with strategy.scope(), spinner(f"Loading {config.backbone}"):
        backbone = _load_backbone(config, entry, preprocessing.image_size)
        keras.utils.set_random_seed(config.seed)
        head = make_head(
            config.head,
            config.task,
            n_outputs=n_outputs,
            targets=train.targets,
            layer=objects.head,
            loss=objects.loss,
            metrics=objects.metrics,
        )
        model = build_model(backbone, head)
    groups = group_layers(backbone)
    stages = make_plan(config.plan, len(groups), config.training)
    batch_size = choose_batch_size(
        config.training.global_batch_size, model, len(train.ids), strategy.num_replicas_in_sync
    )
    trainable = Trainable(
        model=model,
        head=head,
        groups=groups,
        dataset=dataset,
        preprocessing=preprocessing,
        strategy=strategy,
        training=config.training,
        global_batch_size=batch_size,
        batch_norm=config.batch_norm,
        seed=config.seed,
        example_weights=example_weights(config.head.class_weight, config.task, train.targets, classes),
    )
    resolved = _resolve(config, preprocessing.image_size, batch_size, objects)
    return Prepared(resolved, entry, dataset, preprocessing, trainable, stages)


def _with_image_size(config: RunConfig, entry: ZooEntry, objects: PythonObjects) -> PreprocessingConfig:
    if config.preprocessing.image_size is not None:
        return config.preprocessing
    size = default_image_size(entry.input, longest_side(config.data, objects.data))
    return config.preprocessing.model_copy(update={"image_size": size})


def find_entry(backbone: str) -> ZooEntry:
    """The zoo entry behind a name, or behind an earlier run's folder."""
    return load_run(backbone).entry if _is_run(backbone) else zoo.get(backbone)


def _load_backbone(config: RunConfig, entry: ZooEntry, image_size: int) -> Backbone:
    if not _is_run(config.backbone):
        return load(entry, weights=config.weights == "pretrained", image_size=image_size, seed=config.seed)
    tuned = load_run(config.backbone).backbone_model
    if tuned.input_shape[1] == image_size:
        return Backbone(entry, tuned, {"map": tuned.output})
    backbone = load(entry, weights=False, image_size=image_size, seed=config.seed)
    backbone.model.set_weights(tuned.get_weights())
    return backbone


def _is_run(backbone: str) -> bool:
    path = Path(backbone)
    return path.is_dir() and RunFolder(path).state.exists()


def _resolve(config: RunConfig, image_size: int, batch_size: int, objects: PythonObjects) -> RunConfig:
    update: dict[str, Any] = {
        "data": resolve_sample_split(config.data),
        "preprocessing": config.preprocessing.model_copy(update={"image_size": image_size}),
        "training": config.training.model_copy(update={"global_batch_size": batch_size}),
        "python": objects.names,
    }
    return config.model_copy(update=update)
