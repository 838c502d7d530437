"""The steps before training that a run and its dry run share: config → model, data, groups, stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tlkit.backbones import Backbone, entry_of, image_features, load, with_input
from tlkit.config import HeadConfig, RunConfig
from tlkit.config.augment import Augmentation, resolve_augment
from tlkit.config.augmentation import Modality
from tlkit.config.recipe import RECIPES
from tlkit.data import Dataset, resolve_sample_split
from tlkit.devices import device_kind, make_strategy
from tlkit.errors import ConfigError
from tlkit.exchange import gather
from tlkit.freezing import group_layers
from tlkit.heads import class_weights, example_weights, make_head
from tlkit.model import build_model
from tlkit.plans import Stage, make_plan
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing
from tlkit.progress import spinner
from tlkit.results import RunFolder
from tlkit.training import (
    Trainable,
    choose_batch_size,
    require_compilable,
    require_examples,
    require_whole_update,
)
from tlkit.workflows.backbone import load_backbone
from tlkit.workflows.examples import Preprocessing, default_backbone, load_examples
from tlkit.workflows.fits import require_fit, require_mixable, require_trainable
from tlkit.workflows.objects import PYTHON_MODEL, PythonObjects
from tlkit.workflows.run import load_run
from tlkit.workflows.workers import require_same_start
from tlkit.zoo import ZooEntry

NOTABLE = 0.01  # share of texts


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train. `config` has every default resolved that depends on the data."""

    config: RunConfig
    entry: ZooEntry
    dataset: Dataset
    preprocessing: Preprocessing
    trainable: Trainable
    stages: tuple[Stage, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What somebody should know before the run trains."""
        spec, notes = self.config.preprocessing, [f"{self.entry.name}: {note}" for note in self.entry.notes]
        if spec.nltk and self.entry.kind == "text":
            notes.append(
                "NLTK steps usually make a pretrained transformer worse: it was trained on plain text. "
                "By how much: tlkit finetune --compare preprocessing.nltk=none"
            )
        if self.dataset.truncated >= NOTABLE:
            rest = "only that much is read" if spec.long_texts != "windows" else "they are read in windows"
            notes.append(
                f"{self.dataset.truncated:.0%} of the texts are longer than {spec.sequence_length} tokens: "
                f"{rest}. More at once: --sequence-length"
            )
        if self.config.precision == "mixed_float16" and device_kind(self.trainable.strategy) == "CPU":
            notes.append("mixed_float16 is made for GPUs: on a CPU mixed_bfloat16 or float32 is faster.")
        return tuple(notes)


def prepare(config: RunConfig, objects: PythonObjects | None = None) -> Prepared:
    """Load, check and build everything that a run needs. Nothing is written.

    Raises:
        TlkitError: Whatever is wrong with config, data, backbone or devices, before any training.
    """
    objects = objects or PythonObjects()
    strategy = make_strategy(config.strategy)  # that of several workers has to come before all of TensorFlow
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    config = config.model_copy(update={"backbone": default_backbone(config, objects)})
    entry = find_entry(config, objects)
    require_fit(config, entry, is_run=run_folder(config) is not None)
    require_mixable(config, own_loss=objects.loss is not None)
    dataset, preprocessing = load_examples(config, entry, objects, run_folder(config))
    config = _resolve(config, entry, dataset, preprocessing, objects)
    require_same_start(strategy, config, dataset)
    train = dataset.splits["train"]
    classes = dataset.manifest.classes
    with strategy.scope(), spinner(f"Loading {config.backbone}"):
        backbone = find_backbone(config, entry, preprocessing, objects)
        if config.head.pooling == "auto" and entry.pooling == "cls" and objects.head is None:
            config = config.model_copy(update={"head": config.head.model_copy(update={"pooling": "cls"})})
        keras.utils.set_random_seed(config.seed)
        head = make_head(
            config.head,
            config.objective,
            n_outputs=_count_outputs(dataset),
            targets=train.targets,
            classes=classes,
            layer=objects.head,
            loss=objects.loss,
            metrics=objects.metrics,
        )
        backbone = backbone.for_head(head.uses_pooler)
        model = build_model(
            backbone,
            head,
            windows=entry.modality == "text" and config.preprocessing.long_texts == "windows",
            words=config.task == "tokens",
            pairs=config.task == "pair",
        )
    groups = group_layers(backbone)
    recipe = RECIPES[entry.kind]
    config = config.model_copy(update={"plan": config.plan or recipe.plan})
    stages = make_plan(config.plan, len(groups), config.training, recipe)
    require_trainable(groups, stages, entry, model.count_params() - backbone.model.count_params())
    batch_size = choose_batch_size(
        config.training.global_batch_size,
        model,
        len(train.ids),
        strategy.num_replicas_in_sync,
        config.preprocessing.sequence_length or 1,
    )
    batch_size = int(min(gather(strategy, batch_size)))  # what fits into the memory of all workers
    require_examples(len(dataset.splits.get("validation", ())), strategy.num_replicas_in_sync)
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
        cache=config.cache,
        deterministic=config.deterministic,
        precision=config.precision,
        xla=config.xla,
        backbone=entry.name,
        augmentations=_augmentations(config, entry, objects),
        example_weights=example_weights(config.head.class_weight, config.objective, train.targets, classes),
    )
    require_compilable(trainable)
    require_whole_update(trainable)
    training = config.training.model_copy(update={"global_batch_size": batch_size})
    resolved = config.model_copy(update={"training": training})
    return Prepared(resolved, backbone.entry, dataset, preprocessing, trainable, stages)


def _augmentations(
    config: RunConfig, entry: ZooEntry, objects: PythonObjects
) -> tuple[Augmentation, ...] | None:
    """What the augmentation is made of; None for a Python object."""
    if objects.augment is not None:
        return None
    modality: Modality = "image" if entry.modality == "image" else "text"
    return resolve_augment(config.preprocessing.augment, modality, config.task)


def find_entry(config: RunConfig, objects: PythonObjects | None = None) -> ZooEntry:
    """The zoo entry of the backbone: of a reference, of an earlier run's folder, or of a Keras model."""
    assert config.backbone is not None
    scaling = config.preprocessing.scaling
    if objects is not None and objects.backbone is not None:
        return load(objects.backbone, image_size=config.preprocessing.image_size, scaling=scaling).entry
    if config.backbone.startswith(PYTHON_MODEL):
        raise ConfigError(
            f"backbone: {config.backbone!r} was a Keras model in Python, which no config holds. "
            "Pass it again as backbone=, or name the folder of the run that it was in."
        )
    if run_folder(config) is not None:
        return with_input(load_run(config.backbone).entry, scaling=scaling)
    return entry_of(config.backbone, scaling=scaling, trust=config.trust)


def run_folder(config: RunConfig) -> RunFolder | None:
    """The folder of the earlier run that is the backbone, if it is one."""
    folder = RunFolder(Path(config.backbone or ""))
    return folder if folder.path.is_dir() and folder.state.exists() else None


def find_backbone(
    config: RunConfig, entry: ZooEntry, preprocessing: Preprocessing, objects: PythonObjects
) -> Backbone:
    """The backbone that a config means, in the size that the preprocessing makes."""
    assert config.backbone is not None
    tuned = load_run(config.backbone, trust=config.trust).backbone_model if run_folder(config) else None
    weights = config.weights == "pretrained" and tuned is None
    if isinstance(preprocessing, TextPreprocessing):
        if tuned is not None:
            return Backbone(entry, tuned, dict(tuned.output))
        return load_backbone(config, entry, preprocessing, weights=weights)
    size = preprocessing.image_size
    if tuned is not None and tuned.input_shape[1] == size:
        return Backbone(entry, tuned, image_features(tuned))
    if objects.backbone is not None:
        model = load(objects.backbone, weights=weights, image_size=size).model
        return Backbone(entry, model, {"map": model.output})
    if tuned is not None and entry.constructor is None:
        raise ConfigError(
            f"preprocessing.image_size: {config.backbone!r} takes pictures of {tuned.input_shape[1]} pixels "
            f"only, received {size}."
        )
    backbone = load_backbone(config, entry, preprocessing, weights=weights)
    if tuned is not None:
        backbone.model.set_weights(tuned.get_weights())
    return backbone


def _count_outputs(dataset: Dataset) -> int | None:
    """Classes, tags or target values; vectors are as wide as the backbone makes them."""
    if dataset.manifest.classes is not None:
        return len(dataset.manifest.classes)
    targets = dataset.splits["train"].targets
    return None if dataset.objective == "embed" else int(targets.reshape(len(targets), -1).shape[1])


def _weigh_classes(config: RunConfig, dataset: Dataset) -> HeadConfig:
    """The weights as numbers, so that an evaluation later on has the same loss."""
    classes = dataset.manifest.classes or ()
    targets = dataset.splits["train"].targets
    weights = class_weights(config.head.class_weight, config.objective, targets, classes)
    assert weights is not None
    table = dict(zip(classes, weights.tolist(), strict=True))
    return config.head.model_copy(update={"class_weight": table})


def _resolve(
    config: RunConfig,
    entry: ZooEntry,
    dataset: Dataset,
    preprocessing: Preprocessing,
    objects: PythonObjects,
) -> RunConfig:
    """The config with what was found in the data, so that the run can be repeated from it."""
    size = (
        {"image_size": preprocessing.image_size, "resize": preprocessing.resize}
        if isinstance(preprocessing, ImagePreprocessing)
        else {"sequence_length": preprocessing.sequence_length}
    )
    update: dict[str, Any] = {
        "data": resolve_sample_split(config.data),
        "preprocessing": config.preprocessing.model_copy(update=size),
        "python": objects.names,
    }
    if entry.kind == "scratch":
        update["weights"] = "none"
    if config.task in ("multilabel", "tokens") and config.head.class_weight == "balanced":
        update["head"] = _weigh_classes(config, dataset)
    if config.task == "pair":
        update["head"] = config.head.model_copy(update={"pair": dataset.objective})
    return config.model_copy(update=update)
