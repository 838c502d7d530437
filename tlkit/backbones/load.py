"""From a zoo entry to a Keras model: build the architecture, fetch its weights, put them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras

from tlkit import zoo
from tlkit.backbones.backbone import Backbone
from tlkit.backbones.efficientnet_lite import build_efficientnet_lite, load_efficientnet_lite
from tlkit.backbones.fresh_names import fresh_names, seeded
from tlkit.backbones.keras_applications import build_keras_application
from tlkit.backbones.keras_file import load_keras_file, load_weights_file
from tlkit.backbones.mobilenet_torchvision import build_mobilenet_torchvision, load_mobilenet_torchvision
from tlkit.errors import ConfigError
from tlkit.zoo.entry import Constructor, ZooEntry
from tlkit.zoo.source import FileSource, KerasSource

BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "efficientnet_lite": build_efficientnet_lite,
    "keras_application": build_keras_application,
    "mobilenet_torchvision": build_mobilenet_torchvision,
}
WEIGHT_READERS: dict[str, Callable[[keras.Model, Path], None]] = {
    "efficientnet_lite": load_efficientnet_lite,
    "mobilenet_torchvision": load_mobilenet_torchvision,
}


def load(
    entry: ZooEntry | str,
    *,
    weights: bool = True,
    image_size: int | None = None,
    seed: int | None = None,
) -> Backbone:
    """Load a backbone: its pretrained weights are fetched at first use.

    `weights=False` gives the same architecture with the layers' own random initialisers, without a
    network; `seed` makes that draw repeatable. `image_size` is in pixels and defaults to the size that the
    weights were trained for. Layer names do not depend on what was built before in this process.

    Raises UnknownNameError (no such entry), ConfigError (a size that the architecture cannot take),
    FetchError and StorageError (the weights cannot be had).

    >>> backbone = load("efficientnet_lite0")
    >>> backbone.model.output.shape
    (None, 7, 7, 1280)
    """
    entry = zoo.get(entry) if isinstance(entry, str) else entry
    size = _checked_size(entry, image_size)
    if isinstance(entry.source, FileSource) and not entry.source.path.endswith(".weights.h5"):
        if not weights:
            raise ConfigError(f"{entry.name!r} is a saved model: it cannot be built without its weights")
        model = load_keras_file(entry.source, zoo.fetch_weights(entry), size)
    else:
        model = _build(entry, size, weights=weights, top=False, seed=seed)
    return Backbone(entry, model, {"map": model.output})


def load_classifier(entry: ZooEntry | str, *, image_size: int | None = None) -> keras.Model:
    """The pretrained ImageNet classifier: pictures, scaled as the entry says, to 1000 logits (N, 1000).

    Raises what `load` raises, and ConfigError when the entry has no classification top.
    """
    entry = zoo.get(entry) if isinstance(entry, str) else entry
    if isinstance(entry.source, FileSource):
        raise ConfigError(f"{entry.name!r} comes from a file: it has no ImageNet classification top")
    return _build(entry, _checked_size(entry, image_size), weights=True, top=True, seed=None)


def _build(entry: ZooEntry, size: int, *, weights: bool, top: bool, seed: int | None) -> keras.Model:
    constructor = _constructor(entry)
    arguments = dict(constructor.arguments)
    from_keras = isinstance(entry.source, KerasSource)
    if from_keras:
        arguments["weights"] = weights
    path = zoo.fetch_weights(entry) if weights and not from_keras else None
    with fresh_names(), seeded(seed):
        model = BUILDERS[constructor.builder](size, top=top, **arguments)
    if path is not None and path.name.endswith(".weights.h5"):
        load_weights_file(model, path)
    elif path is not None:
        WEIGHT_READERS[constructor.builder](model, path)
    return model


def _constructor(entry: ZooEntry) -> Constructor:
    if entry.constructor is None:
        raise ConfigError(f"The zoo entry {entry.name!r} needs a constructor: its source holds weights only")
    if entry.constructor.builder not in BUILDERS:
        raise ConfigError(
            f"The zoo entry {entry.name!r} names the builder {entry.constructor.builder!r}. "
            f"Allowed: {', '.join(BUILDERS)}"
        )
    return entry.constructor


def _checked_size(entry: ZooEntry, image_size: int | None) -> int:
    size = entry.input.image_size if image_size is None else image_size
    if size < entry.input.min_image_size:
        raise ConfigError(
            f"image_size {size} is too small for {entry.name!r}: at least {entry.input.min_image_size}"
        )
    return size
