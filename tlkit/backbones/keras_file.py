"""A backbone from a saved Keras model on this machine."""

from __future__ import annotations

from pathlib import Path

import keras

from tlkit.backbones.graph import calls_of
from tlkit.errors import ConfigError, FetchError
from tlkit.zoo.source import FileSource


def load_keras_file(source: FileSource, path: Path, image_size: int) -> keras.Model:
    """The part of a `.keras` model from its input up to its last 4-D tensor, or `source.output`.

    `safe_mode` stays on: a file that holds Python code is refused. Raises FetchError when Keras cannot
    open the file, ConfigError when it has no feature map or takes pictures of another size.
    """
    if path.suffix != ".keras":
        raise ConfigError(f"A file source is a .keras model or .weights.h5, received {path.name!r}")
    try:
        whole = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise FetchError(f"{path} cannot be opened as a Keras model: {_first_line(error)}") from error
    if not isinstance(whole, keras.Model) or not getattr(whole, "outputs", None):
        raise ConfigError(f"{path} is not a functional Keras model: it cannot be cut below its head")
    shapes = [tuple(tensor.shape) for tensor in whole.inputs]
    if len(shapes) != 1 or shapes[0][1:] not in ((image_size, image_size, 3), (None, None, 3)):
        raise ConfigError(f"{path} takes inputs of shape {shapes}, not pictures of {image_size} pixels")
    return _up_to_map(whole, source.output, path)


def load_weights_file(model: keras.Model, path: Path) -> None:
    """Fill `model` from a `.weights.h5` file. Raises FetchError when the file is damaged or does not fit."""
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise FetchError(f"{path} does not hold weights of {model.name!r}: {_first_line(error)}") from error


def _up_to_map(model: keras.Model, output: str | None, path: Path) -> keras.Model:
    for call in reversed(calls_of(model)):
        is_map = len(call.outputs[0].shape) == 4 and call.inputs
        if call.operation.name == output or (output is None and is_map):
            if isinstance(call.operation, keras.Model) and call.inputs == tuple(model.inputs):
                return call.operation  # the model holds its backbone as one layer
            return keras.Model(model.inputs[0], call.outputs[0], name=model.name)
    wanted = f"layer {output!r}" if output else "4-D tensor"
    raise ConfigError(f"{path} has no {wanted} to take features from")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
