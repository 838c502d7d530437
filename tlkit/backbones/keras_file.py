"""A backbone from a saved Keras model on this machine."""

from __future__ import annotations

from pathlib import Path

import keras

from tlkit.backbones.checked_keras import first_line, load_checked_model
from tlkit.backbones.keras_model import backbone_part
from tlkit.errors import ConfigError, FetchError
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.source import FileSource, UrlSource, WheelSource
from tlkit.zoo.what_it_is import what_it_is

_MODELS = (".keras", ".h5")


def load_keras_file(path: Path, *, output: str | None = None, image_size: int | None = None) -> keras.Model:
    """The part of a `.keras` (or `.h5`) model from its input up to its last 4-D tensor, or `output`.

    A file that holds Python code is refused. Raises FetchError when the file is refused or Keras cannot open
    it, ConfigError when it has no feature map or takes pictures of another size.
    """
    if not path.name.endswith(_MODELS) or path.name.endswith(".weights.h5"):
        raise ConfigError(
            f"A file source is a .keras model or .weights.h5, received {path.name!r}, {what_it_is(path)}"
        )
    try:
        whole = load_checked_model(path)
    except (ValueError, TypeError) as error:
        raise FetchError(f"{path} cannot be opened as a Keras model: {first_line(error)}") from error
    part = backbone_part(whole, output, what=str(path))
    fixed = part.inputs[0].shape[1]
    if image_size is not None and fixed not in (None, image_size):
        raise ConfigError(f"{path} takes pictures of {fixed} pixels, not pictures of {image_size} pixels")
    return part


def is_keras_file(entry: ZooEntry) -> bool:
    """Whether the entry's weights are a whole Keras model, which needs no constructor."""
    source = entry.source
    if isinstance(source, FileSource) and entry.modality == "image":
        return not source.path.endswith(".weights.h5")  # what is none is refused when it is loaded
    if isinstance(source, WheelSource):
        return _is_model(source.member)
    return isinstance(source, UrlSource) and _is_model(source.member or source.url)


def _is_model(name: str) -> bool:
    return name.endswith(_MODELS) and not name.endswith(".weights.h5")
