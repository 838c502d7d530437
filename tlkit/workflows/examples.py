"""The examples of a run, and the preprocessing that fits them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from tlkit.backbones import source_folder
from tlkit.config import RunConfig
from tlkit.config.augment import resolve_augment
from tlkit.config.head import TEXT_TASKS
from tlkit.config.recipe import DEFAULT_BACKBONES
from tlkit.data import Dataset, encode_texts, load, longest_side, modality_of, read_texts
from tlkit.errors import ConfigError
from tlkit.preprocessing import (
    ImagePreprocessing,
    TextPreprocessing,
    Tokenizer,
    default_image_size,
    from_callable,
    learn_tokenizer,
    load_tokenizer,
    make_preprocessing,
    make_text_preprocessing,
    make_tokenizer,
)
from tlkit.preprocessing.nltk_steps import make_cleaner
from tlkit.preprocessing.text_augment import make_text_augment
from tlkit.results import RunFolder
from tlkit.workflows.objects import PythonObjects
from tlkit.zoo import ImageInput, TextInput, ZooEntry

Preprocessing = ImagePreprocessing | TextPreprocessing


def load_examples(
    config: RunConfig, entry: ZooEntry, objects: PythonObjects, earlier: RunFolder | None = None
) -> tuple[Dataset, Preprocessing]:
    """Read, check and split the examples, and make the preprocessing that suits backbone and examples.

    Args:
        config: What is read, and how it is preprocessed.
        entry: The backbone's.
        objects: Data and augmentation that no config can hold.
        earlier: The folder of the earlier run that is the backbone, if it is one: its vocabulary is used.

    Raises:
        TlkitError: What is wrong with data, preprocessing or vocabulary.
    """
    if isinstance(entry.input, ImageInput):
        _require_pictures(config, objects)
        preprocessing: Preprocessing = _picture_preprocessing(config, entry.input, objects)
        dataset = load(
            config.data, config.task, seed=config.seed, preprocessing=preprocessing, source=objects.data
        )
        return dataset, preprocessing
    if objects.augment is not None:
        raise ConfigError(
            "augment: Keras layers and functions are for pictures; for texts name augmentations."
        )
    assert isinstance(entry.input, TextInput)  # what takes neither was refused by `require_fit`
    spec = config.preprocessing
    clean = make_cleaner(spec.nltk) if spec.nltk else None
    texts = read_texts(
        config.data,
        config.task,
        seed=config.seed,
        normalization=spec.normalize,
        clean=clean,
        pair=config.head.pair,
        source=objects.data,
    )
    augmentations = resolve_augment(spec.augment, "text", config.task)
    text_preprocessing = make_text_preprocessing(
        entry.input,
        spec,
        _tokenizer(config, entry, entry.input, texts.training, earlier),
        config.task,
        augmentation=make_text_augment(augmentations, texts.training) if augmentations else None,
        clean=clean,
    )
    return encode_texts(texts, text_preprocessing, fit_length=spec.sequence_length is None)


def load_preprocessing(config: RunConfig, entry: ZooEntry, earlier: RunFolder | None = None) -> Preprocessing:
    """The preprocessing of a run whose config is resolved, on a backbone that is not trained from scratch.

    `earlier` is as of `load_examples`.
    """
    if isinstance(entry.input, ImageInput):
        return make_preprocessing(entry.input, config.preprocessing)
    assert isinstance(entry.input, TextInput)
    spec = config.preprocessing
    clean = make_cleaner(spec.nltk) if spec.nltk else None
    tokenizer = _tokenizer(config, entry, entry.input, (), earlier)
    return make_text_preprocessing(entry.input, spec, tokenizer, config.task, clean=clean)


def _tokenizer(
    config: RunConfig, entry: ZooEntry, takes: TextInput, texts: Iterable[str], earlier: RunFolder | None
) -> Tokenizer:
    """The backbone's own, or for one that is trained from scratch one that is learned here."""
    if earlier is not None:
        return load_tokenizer(earlier.tokenizer)
    if takes.tokenizer.kind == "words":
        assert entry.constructor is not None
        own = entry.constructor.arguments["vocabulary_size"]
        size = config.architecture.vocabulary_size or own
        assert isinstance(size, int)
        return learn_tokenizer(takes.tokenizer, texts, size)
    if takes.tokenizer.kind == "strings":
        return make_tokenizer(takes.tokenizer, Path())
    return make_tokenizer(takes.tokenizer, source_folder(entry))


def default_backbone(config: RunConfig, objects: PythonObjects) -> str:
    """The backbone's name, or what suits the kind of the examples where the config names none."""
    source = config.data.source if objects.data is None else objects.data
    if config.backbone is not None:
        return config.backbone
    only_texts = config.task in TEXT_TASKS
    return DEFAULT_BACKBONES["text" if only_texts else modality_of(source, config.data)]


def _require_pictures(config: RunConfig, objects: PythonObjects) -> None:
    source = config.data.source if objects.data is None else objects.data
    if source is not None and modality_of(source, config.data) == "text":
        name = config.data.source if objects.data is None else f"data ({type(source).__name__})"
        raise ConfigError(
            f"{name}: holds texts, but {config.backbone!r} takes pictures. Choose a backbone for texts "
            f"({DEFAULT_BACKBONES['text']} is the default), or name the column of pictures in "
            "data.columns.path."
        )


def _picture_preprocessing(
    config: RunConfig, takes: ImageInput, objects: PythonObjects
) -> ImagePreprocessing:
    spec = config.preprocessing
    if spec.image_size is None:
        size = default_image_size(takes, longest_side(config.data, objects.data))
        spec = spec.model_copy(update={"image_size": size})
    preprocessing = make_preprocessing(takes, spec)
    if objects.augment is None:
        return preprocessing
    preprocessing = replace(preprocessing, augmentation=from_callable(objects.augment))
    size = preprocessing.image_size
    # Tried once, so that a mistake in it is found before anything is written.
    preprocessing.augment(tf.zeros((2, size, size, 3), tf.uint8), tf.zeros((2, 2), tf.int64))
    return preprocessing
