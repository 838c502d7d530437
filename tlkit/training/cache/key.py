"""What the features of a boundary depend on besides the example, as a hash."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tlkit
from tlkit.backbones.graph import replay
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing

KNOWN = ("keras", "keras_hub", "tlkit")
PACKAGES = ("tensorflow", "keras", "keras-hub", "tensorflow-text")
CODE = ("preprocessing", "backbones", "heads", "training", "features")


def key_of_boundary(lower: keras.Model, preprocessing: ImagePreprocessing | TextPreprocessing) -> str | None:
    """A hash of the frozen layers, their weights, the boundary, the preprocessing and the code of all that.

    None where a layer does not say what it does: its features must not outlive the process.
    """
    operations = _describe(lower)
    if operations is None:
        return None
    digest = hashlib.sha256(_code().encode())
    digest.update(json.dumps([operations, _describe_preprocessing(preprocessing)]).encode())
    for weight in lower.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def _describe(lower: keras.Model) -> list[Any] | None:
    """The operations in their order, each with its settings and the tensors that it takes."""
    numbers: dict[int, str] = {id(tensor): f"input {tensor.name}" for tensor in lower.inputs}
    described: list[Any] = []

    def show(value: Any) -> str:
        if isinstance(value, keras.KerasTensor):
            return numbers[id(value)]
        return hashlib.sha256(value.tobytes()).hexdigest() if isinstance(value, np.ndarray) else repr(value)

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        given = [show(value) for value in keras.tree.flatten((args, kwargs))]
        described.append([type(operation).__name__, type(operation).__module__, _settings(operation), given])
        outputs = operation(*args, **kwargs)
        for place, tensor in enumerate(keras.tree.flatten(outputs)):
            numbers[id(tensor)] = f"{len(described)}.{place}"
        return outputs

    try:
        outputs = replay(lower, keras.tree.pack_sequence_as(lower._inputs_struct, lower.inputs), call)
        return [*described, sorted([name, show(tensor)] for name, tensor in outputs.items())]
    except (TypeError, ValueError, RuntimeError):  # Keras's own refusals, and the one below
        return None


def _settings(operation: Any) -> str:
    """Raises ValueError where a layer does not give them: their code is somebody else's, and may
    change while its settings stay."""
    if not isinstance(operation, keras.layers.Layer):
        plain = {
            key: value
            for key, value in vars(operation).items()
            if isinstance(value, int | float | str | tuple)
        }
        return json.dumps({key: repr(plain[key]) for key in sorted(plain) if key not in ("name", "_name")})
    for layer in operation._flatten_layers():
        if type(layer).__module__.partition(".")[0] not in KNOWN or isinstance(layer, keras.layers.Lambda):
            raise ValueError(type(layer).__name__)
    config = keras.saving.serialize_keras_object(operation)["config"]
    return json.dumps(without_names(config), sort_keys=True, default=repr)


def without_names(config: Any) -> Any:
    """Names count the layers of the process, and say nothing about what they do; but that of a type does."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return config
        return {key: without_names(value) for key, value in config.items() if key != "name"}
    return [without_names(value) for value in config] if isinstance(config, list | tuple) else config


def _describe_preprocessing(preprocessing: ImagePreprocessing | TextPreprocessing) -> list[str]:
    if isinstance(preprocessing, ImagePreprocessing):
        parts: list[Any] = [
            preprocessing.image_size,
            preprocessing.resize,
            preprocessing.scaling,
            preprocessing.resizing,
        ]
        return [repr(part) for part in parts]
    parts = [
        preprocessing.input,
        preprocessing.sequence_length,
        preprocessing.task,
        preprocessing.long_texts,
        preprocessing.max_windows,
    ]
    with tempfile.TemporaryDirectory() as folder:
        preprocessing.tokenizer.save(Path(folder))
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return [*(repr(part) for part in parts), *hashes]


@functools.cache
def _code() -> str:
    """The versions of the packages that compute features, and the code of tlkit that does."""
    digest = hashlib.sha256()
    for part in CODE:
        for path in sorted((Path(tlkit.__file__).parent / part).rglob("*.py")):
            digest.update(path.read_bytes())
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return f"{digest.hexdigest()} {versions}"
