"""Image backbones of KerasHub, as models from one picture to one map, with their blocks apart."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.backbones.keras_hub_stages import (
    build_hgnet,
    build_mit,
    build_swin,
    copy_hgnet,
    copy_mit,
    copy_swin,
)
from tlkit.backbones.keras_hub_tokens import FAMILIES, build_tokens, copy_tokens
from tlkit.errors import ConfigError


@dataclass(frozen=True)
class Rebuilt:
    """A class whose blocks tlkit puts together anew: from size and arguments, and the weights after."""

    build: Callable[[int, Mapping[str, Any]], keras.Model]
    copy: Callable[[keras.Model, keras.Model], None]


REBUILT = {
    **{name: Rebuilt(partial(build_tokens, name), copy_tokens) for name in FAMILIES},
    "HGNetV2Backbone": Rebuilt(build_hgnet, copy_hgnet),
    "MiTBackbone": Rebuilt(build_mit, copy_mit),
    "SwinTransformerBackbone": Rebuilt(build_swin, copy_swin),
}
AS_IT_IS = {  # class → its argument for the shape of the pictures
    "CSPNetBackbone": "image_shape",
    "DenseNetBackbone": "image_shape",
    "EfficientNetBackbone": "input_shape",
    "MobileNetBackbone": "image_shape",
    "ResNetBackbone": "image_shape",
    "VGGBackbone": "image_shape",
    "XceptionBackbone": "image_shape",
}
_NOT_ARGUMENTS = {"name", "trainable", "dtype", "data_format"}
IMAGE_BACKBONES = tuple(sorted({*REBUILT, *AS_IT_IS}))


def build_keras_hub_image(image_size: int, *, backbone: str, **arguments: Any) -> keras.Model:
    """`keras_hub.models.<backbone>`: (N, size, size, 3) → its last map (N, h, w, C), randomly initialised.

    `arguments` are those of KerasHub's class. Of a vision transformer, `image_shape` (DINOv2:
    `position_embedding_shape`) is the size that its positions were trained for; `image_size` may be another.
    """
    if backbone in REBUILT:
        return REBUILT[backbone].build(image_size, {**_defaults(backbone), **arguments})
    shape = {_shape_argument(backbone): (image_size, image_size, 3)}
    return backbone_class(backbone)(**arguments, **shape)


def load_image_backbone(
    make: Callable[..., keras.Model], image_size: int, *, backbone: str, **arguments: Any
) -> keras.Model:
    """The same with the weights of `make()`, KerasHub's own model; `make` takes what is to be overridden.

    Numbers that no weight shows, such as an epsilon, are those of that model. Raises ConfigError where it has
    another architecture than `arguments` say.
    """
    if backbone not in REBUILT:
        whole = make(**{_shape_argument(backbone): (image_size, image_size, 3)})
        _check_same(whole, backbone, arguments)
        return whole
    whole = make()
    _check_same(whole, backbone, arguments)
    model = build_keras_hub_image(image_size, backbone=backbone, **plain_arguments(whole))
    REBUILT[backbone].copy(whole, model)
    return model


def plain_arguments(whole: keras.Model) -> dict[str, Any]:
    """The arguments that one of KerasHub's models was made with, as plain values."""
    config = {name: value for name, value in whole.get_config().items() if name not in _NOT_ARGUMENTS}
    return dict(json.loads(json.dumps(config)))


def backbone_class(backbone: str) -> Any:
    """KerasHub's class. Raises ConfigError where tlkit does not know it as one for pictures."""
    if backbone not in IMAGE_BACKBONES:
        raise ConfigError(
            f"KerasHub's image backbones are {', '.join(IMAGE_BACKBONES)}, received {backbone!r}"
        )
    return getattr(import_keras_hub().models, backbone)


def _shape_argument(backbone: str) -> str:
    backbone_class(backbone)  # refuses names that are not known
    return AS_IT_IS[backbone]


def _defaults(backbone: str) -> dict[str, Any]:
    parameters = inspect.signature(backbone_class(backbone).__init__).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def _check_same(whole: keras.Model, backbone: str, arguments: Mapping[str, Any]) -> None:
    if type(whole).__name__ != backbone:
        raise ConfigError(f"The preset is a {type(whole).__name__}, its zoo entry says {backbone}")
    theirs = plain_arguments(whole)
    for name, value in arguments.items():
        if name not in theirs or isinstance(value, float):  # KerasHub's configs leave some out
            continue
        if _shown(theirs[name]) != _shown(value):
            raise ConfigError(
                f"The preset is another {backbone} than its zoo entry says: {name} is {theirs[name]!r}, "
                f"the entry has {value!r}"
            )


def _shown(value: Any) -> Any:
    """A square's one side for both, so that 16 and [16, 16] are the same; shapes without their channels."""
    sides = value[:2] if isinstance(value, list) and len(value) in (2, 3) and value[2:] in ([], [3]) else None
    return sides[0] if sides is not None and sides[0] == sides[1] else value
