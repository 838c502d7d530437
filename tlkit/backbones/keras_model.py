"""A Keras model of somebody's own as a backbone: cut below its head, opened, described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras

from tlkit.backbones.backbone import Backbone
from tlkit.backbones.graph import Call, calls_of, layers_with_weights
from tlkit.backbones.grouping import entries_that_fit, propose_groups
from tlkit.errors import ConfigError
from tlkit.zoo.entry import ImageInput, Scaling, ZooEntry
from tlkit.zoo.source import ModelSource, Source

DEFAULT_SIZE = 224  # pixels, of a model that takes any
# What Keras's own preprocess_input functions and the layers for it become in a functional model.
_PREPROCESSING = (
    "Rescaling",
    "Normalization",
    "Add",
    "Divide",
    "GetItem",
    "Multiply",
    "Subtract",
    "TrueDivide",
)


def load_keras_model(
    given: keras.Model, *, scaling: Scaling | None = None, image_size: int | None = None
) -> Backbone:
    """A copy of the part of `given` below its head, and an entry for it. Raises ConfigError."""
    part = backbone_part(copy_model(given), what=f"The model {given.name!r}")
    source = ModelSource(kind="model")
    entry = describe_keras_model(part, given.name, source, scaling=scaling, image_size=image_size)
    assert isinstance(entry.input, ImageInput)
    model = with_size(part, entry.input.image_size)
    return Backbone(entry, model, {"map": model.output})


def backbone_part(model: keras.Model, output: str | None = None, what: str = "The model") -> keras.Model:
    """The part of `model` up to its last feature map (N, h, w, C), or to the layer `output`.

    Models inside it are opened, so that it can be cut anywhere; the layers are the same objects.
    Raises ConfigError when it is not functional, does not take one batch of pictures, or has no such layer.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        raise ConfigError(f"{what} is not a functional Keras model: it cannot be cut below its head")
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3 or shapes[0][1] != shapes[0][2]:
        raise ConfigError(f"{what} takes inputs of shape {shapes}, not square pictures (N, size, size, 3)")
    if len(model.outputs) > 1 and output is None:
        raise ConfigError(f"{what} has {len(model.outputs)} outputs: name the layer to take features from")
    call = _last_map(model, output)
    if call is None:
        wanted = f"layer {output!r}" if output else "4-D tensor"
        raise ConfigError(f"{what} has no {wanted} to take features from")
    if isinstance(call.operation, keras.Model) and call.inputs == tuple(model.inputs):
        return _opened(call.operation)  # the model holds its backbone as one layer
    part = _opened(keras.Model(model.inputs[0], call.outputs[0], name=model.name))
    below = len(list(layers_with_weights(part)))
    above = len(list(layers_with_weights(model))) - below
    if output is None and above > max(below, 3):
        raise ConfigError(
            f"{what} has {above} layers with weights above its last feature map, the output of "
            f"{call.operation.name!r}: that is not its head. Name the layer to take features from"
        )
    return part


def with_size(part: keras.Model, image_size: int) -> keras.Model:
    """`part` for pictures of one size, where it takes any: heads and caches want to know their shapes."""
    if part.inputs[0].shape[1] is not None:
        return part
    inputs = keras.Input((image_size, image_size, 3), name=part.inputs[0].name)
    return keras.models.clone_model(part, input_tensors=inputs, clone_function=lambda layer: layer)


def copy_model(model: keras.Model) -> keras.Model:
    """A model of its own with the same layers and weights, made as one that is read from a file.

    Raises ConfigError where no file of it could be read again, such as with code in a Lambda layer.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
        copy = keras.saving.deserialize_keras_object(config, safe_mode=True)
        copy.set_weights(model.get_weights())
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"The model {model.name!r} cannot be copied, nor kept in a file: {reason} "
            "Own layers and models need get_config and @keras.saving.register_keras_serializable(); a Lambda "
            "layer holds code and is refused"
        ) from error
    return copy


def describe_keras_model(
    part: keras.Model,
    name: str,
    source: Source,
    *,
    scaling: Scaling | None = None,
    image_size: int | None = None,
) -> ZooEntry:
    """The zoo entry of a backbone for pictures (what `backbone_part` gives), worked out from its layers.

    Where the layers are those of a family of the zoo, its groups and its scaling are taken, else the groups
    are proposed. `scaling` and `image_size` (of a model that takes any, in pixels) win over what is found.
    What had to be assumed is in `entry.notes`.
    """
    fitting = entries_that_fit(part)
    family = fitting[0].family if fitting else "own"
    notes = []
    if scaling is None:
        scaling, note = _find_scaling(part, fitting)
        notes.append(note)
    fixed = part.inputs[0].shape[1]
    if image_size is not None and fixed not in (None, image_size):
        raise ConfigError(f"{name!r} takes pictures of {fixed} pixels only, received image_size {image_size}")
    if fixed is None and image_size is None:
        notes.append(f"image_size: {DEFAULT_SIZE} pixels are assumed, the model takes any")
    size = fixed or image_size or DEFAULT_SIZE
    return ZooEntry(
        name=name,
        modality="image",
        family=family,
        source=source,
        input=ImageInput(image_size=size, min_image_size=fixed or min(32, size), scaling=scaling),
        layer_groups=fitting[0].layer_groups if fitting else propose_groups(part),
        params=part.count_params(),
        license="not stated",
        notes=tuple(notes),
    )


def _find_scaling(part: keras.Model, fitting: tuple[ZooEntry, ...]) -> tuple[Scaling, str]:
    first = next(_preprocessing_of(part), None)
    if first is not None:
        return Scaling(), f"scaling: the model does its own, from 0–255 ({first!r})"
    known = {entry.input.scaling for entry in fitting if isinstance(entry.input, ImageInput)}
    if len(known) == 1:
        return known.pop(), f"scaling: assumed to be that of the family {fitting[0].family}"
    return Scaling(), (
        "scaling: assumed to be none (0–255). If the model wants another: preprocessing.scaling="
        "unit (0 to 1), symmetric (−1 to 1), imagenet or caffe"
    )


def _preprocessing_of(part: keras.Model) -> Iterator[str]:
    """The steps before the first layer that was trained which change the range of the pictures."""
    for call in calls_of(part):
        operation = call.operation
        if type(operation).__name__ in _PREPROCESSING:
            yield operation.name
        elif getattr(operation, "weights", None):
            return


def _last_map(model: keras.Model, output: str | None) -> Call | None:
    for call in reversed(calls_of(model)):
        is_map = len(call.outputs) == 1 and len(call.outputs[0].shape) == 4 and bool(call.inputs)
        if call.operation.name == output or (output is None and is_map):
            return call
    return None


def _opened(model: keras.Model) -> keras.Model:
    """The same layers in one flat graph, unless two of them have one name."""
    if not any(isinstance(call.operation, keras.Model) for call in calls_of(model)):
        return model
    names = Counter(operation.name for operation in _all_operations(model))
    if max(names.values()) > 1:
        return model

    def call(layer: Any, *arguments: Any, **named: Any) -> Any:
        if not isinstance(layer, keras.Model):
            return layer(*arguments, **named)
        inner = getattr(layer, "_functional", layer)  # a Sequential holds a functional model
        # Private: the one way to call a model's layers one by one on another model's tensor. Keras 3.15.1.
        return inner._run_through_graph(arguments, call_fn=call)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def _all_operations(model: keras.Model) -> list[Any]:
    """Every layer and operation of a model, each once, those of models inside it in place of these."""
    found: dict[int, Any] = {}
    for call in calls_of(model):
        if not call.inputs:
            continue
        inner = (
            _all_operations(call.operation) if isinstance(call.operation, keras.Model) else [call.operation]
        )
        found |= {id(operation): operation for operation in inner}
    return list(found.values())
