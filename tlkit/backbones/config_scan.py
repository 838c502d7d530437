"""What a Keras config asks for, before Keras is asked to do it.

Keras builds whatever a config names. Its own `safe_mode` stays on, but it guards against Python code in
Lambda layers alone, and in each release against what had been found by then. Here a config may hold nothing
but the classes that models are made of.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import keras

from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.errors import FetchError

# Classes that hold code, or that load more of it from somewhere else.
_CODE = {
    "Lambda": "a Lambda layer, which holds Python code",
    "__lambda__": "a Python function as code",
    "TFSMLayer": "a TFSMLayer, which loads a SavedModel from a path",
    "TorchModuleWrapper": "a TorchModuleWrapper, which holds a pickle",
    "JaxLayer": "a JaxLayer, which calls Python functions",
    "FlaxLayer": "a FlaxLayer, which calls Python functions",
    "__typespec__": "a type that is looked up by its name",
    "TypeSpec": "a type that is looked up by its name",
    "CompositeTensor": "a type that is looked up by its name",
}
_VALUES = {
    "__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__", "__tuple__",
    "TensorShape",
}  # fmt: skip
# Arguments of layers that are read as the path of a file where they are text.
_FILES = ("vocabulary", "vocabulary_file", "merges", "merges_file", "proto", "filepath")
_PACKAGES = ("keras", "keras_hub", "tlkit")
_MODULES = (
    "layers",
    "models",
    "initializers",
    "regularizers",
    "constraints",
    "dtype_policies",
    "activations",
)


def check_config(config: Any, where: str, custom_objects: Mapping[str, Any] | None = None) -> None:
    """Refuse a config that names code, a file to read, or a class that is no part of a model.

    Args:
        config: What `json.loads` gave: the config of a model, a layer, a tokenizer.
        where: The file it came from, for the message.
        custom_objects: The user's own classes, by the names that the config has for them.

    Raises FetchError, which says what was found.
    """
    left: list[Any] = [config]
    while left:
        item = left.pop()
        if isinstance(item, list | tuple):
            left += item
        elif isinstance(item, Mapping):
            _check(item, where, custom_objects or {})
            left += item.values()


def _check(item: Mapping[str, Any], where: str, custom_objects: Mapping[str, Any]) -> None:
    for key in _FILES:
        if isinstance(item.get(key), str):
            raise _refused(where, f"{key!r} of a layer, which would read the file {item[key]!r}")
    if "class_name" not in item:
        return
    name, module = item["class_name"], item.get("module")
    if name in _CODE:
        raise _refused(where, _CODE[name])
    if name in _VALUES:
        return
    if name == "function":
        _check_function(item, where, custom_objects)
        return
    registered = item.get("registered_name")
    own = [custom_objects.get(key) for key in (registered, name) if isinstance(key, str)]
    own += [keras.saving.get_registered_object(key) for key in (registered, name) if isinstance(key, str)]
    found = next((one for one in own if one is not None), None)
    if found is None:
        found = _look_up(name, module)
    if not _is_part_of_a_model(found):
        raise _refused(where, f"{_dotted(module, registered or name)}, which is no layer that is known here")


def _check_function(item: Mapping[str, Any], where: str, custom_objects: Mapping[str, Any]) -> None:
    """A function is an activation of Keras's, or one that the user has brought."""
    name, registered = item.get("config"), item.get("registered_name")
    known = [custom_objects.get(key) for key in (name, registered) if isinstance(key, str)]
    known += [keras.saving.get_registered_object(key) for key in (name, registered) if isinstance(key, str)]
    is_activation = item.get("module") in ("builtins", "keras.activations") and isinstance(name, str)
    if any(one is not None for one in known) or (is_activation and hasattr(keras.activations, str(name))):
        return
    raise _refused(where, f"the function {_dotted(item.get('module'), name)}")


def _look_up(name: Any, module: Any) -> Any:
    """The class that Keras would find, among modules that are loaded already: a config imports none."""
    if not isinstance(name, str) or not isinstance(module, str | None):
        return None
    if module is None:  # files of older versions
        places = [getattr(keras, place) for place in _MODULES]
        places.append(sys.modules.get("keras.src.models.functional"))  # not under its own name in the API
    else:
        if module.partition(".")[0] == "keras_hub":
            import_keras_hub()
        places = [sys.modules.get(module)] if module.partition(".")[0] in _PACKAGES else []
    return next((vars(place)[name] for place in places if place is not None and name in vars(place)), None)


def _is_part_of_a_model(found: Any) -> bool:
    parts = (
        keras.Operation,  # layers and models are some, too
        keras.Initializer,
        keras.Regularizer,
        keras.constraints.Constraint,
        keras.dtype_policies.DTypePolicy,
        keras.Quantizer,
        keras.random.SeedGenerator,
        keras.optimizers.Optimizer,  # a model inside that was compiled says what for
        keras.optimizers.schedules.LearningRateSchedule,
        keras.Loss,
        keras.Metric,
    )
    return isinstance(found, type) and issubclass(found, parts) and found.__name__ not in _CODE


def _refused(where: str, what: str) -> FetchError:
    return FetchError(f"{where} was refused: its config holds {_printable(what)}")


def _dotted(module: Any, name: Any) -> str:
    return f"{module}.{name}" if isinstance(module, str) and module else str(name)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)[:200]
