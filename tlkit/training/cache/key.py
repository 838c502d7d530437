"""What the features of a boundary depend on besides the example, as a hash."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import EllipsisType, FunctionType
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import tlkit
from tlkit.backbones.graph import replay
from tlkit.preprocessing import ImagePreprocessing, TextPreprocessing
from tlkit.results.writing import storage_error

KNOWN = ("keras", "keras_hub", "tensorflow", "tlkit")
PACKAGES = ("tensorflow", "keras", "keras-hub", "tensorflow-text")
CODE = ("preprocessing", "data", "backbones", "heads", "training", "features")


def key_of_boundary(lower: keras.Model, preprocessing: ImagePreprocessing | TextPreprocessing) -> str | None:
    """A hash of the frozen layers, their weights, the boundary, the preprocessing and the code of all that.

    None where a layer does not say what it does: its features must not outlive the process. Raises
    StorageError where there is no room for temporary files.
    """
    try:
        described = json.dumps(_describe(lower), sort_keys=True)
    except (KeyError, RuntimeError, TypeError, ValueError):  # Keras's own refusals, and those below
        return None
    parts = [_code(), described, *_describe_preprocessing(preprocessing)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _describe(lower: keras.Model) -> list[Any]:
    """Inputs, operations, the calls in their order (of which operation, on what), and outputs."""
    names = {id(tensor): f"input {tensor.name}" for tensor in lower.inputs}
    operations: dict[int, tuple[int, Any]] = {}
    calls: list[Any] = []

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        number, _ = operations.setdefault(id(operation), (len(operations), operation))
        calls.append([number, _show([args, kwargs], names)])
        outputs = operation(*args, **kwargs)
        for place, tensor in enumerate(keras.tree.flatten(outputs)):
            names[id(tensor)] = f"{len(calls)}.{place}"
        return outputs

    outputs = replay(lower, keras.tree.pack_sequence_as(lower._inputs_struct, lower.inputs), call)
    inputs = [[tensor.name, tensor.shape, tensor.dtype] for tensor in lower.inputs]
    about = [_describe_operation(operation) for _, operation in operations.values()]
    return [inputs, about, calls, _show(outputs, names)]


def _describe_operation(operation: Any) -> list[Any]:
    """Its kind, settings and weights.

    Raises ValueError where its code is somebody else's, and may change while its settings stay.
    """
    kind = [type(operation).__module__, type(operation).__name__]
    if not isinstance(operation, keras.layers.Layer):
        _require_known(type(operation))
        own = vars(operation).keys() - vars(keras.Operation("any")).keys()
        return [*kind, _show({name: getattr(operation, name) for name in own}, {})]
    for layer in operation._flatten_layers():
        _require_known(type(layer))
        for value in vars(layer).values():
            function = value.func if isinstance(value, functools.partial) else value
            if isinstance(function, FunctionType):  # an activation, say
                _require_known(function)
    config = keras.saving.serialize_keras_object(operation)["config"]
    return [*kind, without_names(config), [_digest(weight.numpy()) for weight in operation.weights]]


def _require_known(code: Any) -> None:
    if (code.__module__ or "").partition(".")[0] not in KNOWN or code is keras.layers.Lambda:
        raise ValueError(code.__name__)


def _show(value: Any, names: Mapping[int, str]) -> Any:
    """A value in JSON, such that no two different ones are the same there.

    `names` are those of the tensors of the graph, by id. Raises ValueError for what has no value of its own.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, keras.KerasTensor):
        return {"tensor": names[id(value)]}
    if isinstance(value, list | tuple):  # a model that was saved has lists where it had tuples
        return [_show(each, names) for each in value]
    if isinstance(value, Mapping):
        return {"items": {str(key): _show(each, names) for key, each in value.items()}}
    if isinstance(value, slice):
        return {"slice": _show([value.start, value.stop, value.step], names)}
    if isinstance(value, np.ndarray | np.generic | keras.Variable) or tf.is_tensor(value):
        return {"array": _digest(keras.ops.convert_to_numpy(value))}
    if isinstance(value, EllipsisType | tf.DType | np.dtype):
        return {"constant": repr(value)}
    raise ValueError(type(value).__name__)


def _digest(array: npt.NDArray[Any]) -> list[Any]:
    if array.dtype.hasobject:
        raise ValueError(array.dtype.name)
    return [array.dtype.name, array.shape, hashlib.sha256(array.tobytes()).hexdigest()]


def without_names(config: Any) -> Any:
    """Names count the layers of the process, and say nothing about what they do; but that of a type does, and
    those inside a graph tell which layers are the same."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy" or "input_layers" in config:
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
    try:
        with tempfile.TemporaryDirectory() as folder:
            preprocessing.tokenizer.save(Path(folder))
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    except OSError as error:
        raise storage_error(Path(tempfile.gettempdir()), error) from error
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
