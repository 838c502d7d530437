"""The zoo entry of a KerasHub preset, from its config and its preprocessing; its weights are not loaded."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import keras
import pydantic

from tlkit.backbones.fresh_names import fresh_names
from tlkit.backbones.keras_hub_errors import preset_errors
from tlkit.backbones.keras_hub_fetch import image_converter, open_preset, require_known
from tlkit.backbones.keras_hub_image import backbone_class, build_keras_hub_image, plain_arguments
from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.backbones.keras_hub_preset import scaling_of
from tlkit.backbones.keras_hub_text import CLASSES
from tlkit.errors import ConfigError
from tlkit.zoo.entry import Scaling, ZooEntry
from tlkit.zoo.registry import expand_groups, family_fields, merge
from tlkit.zoo.source import KerasHubSource
from tlkit.zoo.text_parameters import count_parameters

FAMILIES = {  # class of keras_hub.models → family of the zoo
    "CSPNetBackbone": "cspnet",
    "DINOV2Backbone": "dinov2",
    "DINOV3Backbone": "dinov3",
    "DeiTBackbone": "deit",
    "DenseNetBackbone": "keras_hub_densenet",
    "EfficientNetBackbone": "keras_hub_efficientnet",
    "HGNetV2Backbone": "hgnet_v2",
    "MiTBackbone": "mit",
    "MobileNetBackbone": "keras_hub_mobilenet",
    "ResNetBackbone": "keras_hub_resnet",
    "SwinTransformerBackbone": "swin",
    "VGGBackbone": "keras_hub_vgg",
    "ViTBackbone": "vit",
    "XceptionBackbone": "keras_hub_xception",
}
_TABLE_SHAPES = {  # which argument says what size the table of positions is for
    "DINOV2Backbone": "position_embedding_shape",
    "DeiTBackbone": "image_shape",
    "ViTBackbone": "image_shape",
}
_SHAPES = {"image_shape", "input_shape", "position_embedding_shape"}
_VOCABULARIES = {
    "bytepair": ["vocabulary.json", "merges.txt"],
    "sentencepiece": ["vocabulary.spm"],
    "wordpiece": ["vocabulary.txt"],
}
_LICENSE = "as the preset's model card says"
_PADDED = "resize: the preset pads a picture before it scales it, tlkit after: borders differ a little"


def describe_keras_hub(
    source: KerasHubSource,
    name: str,
    *,
    scaling: Scaling | None = None,
    image_size: int | None = None,
    trust: bool = False,
) -> ZooEntry:
    """The zoo entry of a preset: a name that KerasHub knows, `kaggle://…`, `hf://…`, or a folder.

    The preset's preprocessing for pictures becomes the entry's size, scaling and way of resizing; `scaling`
    and `image_size` (pixels) win over it. Presets hold no code, so `trust` changes nothing.
    Raises FetchError where it cannot be had, ConfigError where tlkit cannot use it: it is another kind of
    model, or does not say how pictures are scaled.
    """
    preset = source.preset
    with open_preset(preset) as folder, preset_errors(preset):
        whole = import_keras_hub().models.Backbone.from_preset(folder, load_weights=False)
        for_pictures = require_known(whole, preset)
        converter = image_converter(folder) if for_pictures else None
        tokenizer = None if for_pictures else import_keras_hub().models.Tokenizer.from_preset(folder)
    backbone = type(whole).__name__
    shared: dict[str, Any] = {
        "name": name,
        "source": source.model_dump(),
        "license": _LICENSE,
        "license_source": None,
        "citation": None,
        "verified": False,
    }
    if for_pictures:
        family = FAMILIES[backbone]
        own = _image_fields(whole, converter, preset, scaling, image_size)
    else:
        family = next(family for family, cls in CLASSES.items() if cls == backbone)
        own = _text_fields(whole, tokenizer, family)
    try:
        return ZooEntry.model_validate(
            expand_groups(merge(family_fields(family), {**shared, "family": family, **own}))
        )
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"The preset {preset} is not a backbone: {where}: {first['msg']}") from error


def _image_fields(
    whole: keras.Model, converter: Any | None, preset: str, scaling: Scaling | None, image_size: int | None
) -> dict[str, Any]:
    backbone = type(whole).__name__
    if converter is None and scaling is None:
        raise ConfigError(
            f"The preset {preset} does not say how pictures are scaled (it has no image_converter.json): "
            "name the scaling, like imagenet"
        )
    arguments = _image_arguments(whole)
    step, least = _sizes(backbone, arguments)
    size = image_size or _size_of(converter, whole, preset)
    if size % step:
        size = max(size // step * step, least)
    with fresh_names():
        model = build_keras_hub_image(size, backbone=backbone, **arguments)
    resizing: dict[str, Any] = {} if converter is None else _resizing(converter)
    return {
        "constructor": {"builder": "keras_hub_image", "arguments": {"backbone": backbone, **arguments}},
        "input": {
            "image_size": size,
            "min_image_size": least,
            "multiple_of": step,
            "scaling": (scaling or scaling_of(converter)).model_dump(),
            "resizing": resizing,
        },
        "notes": [_PADDED] if resizing.get("fit") == "pad" else [],
        "params": model.count_params(),
        **({"pooling": "avg"} if not arguments.get("use_class_token", True) else {}),
        # The one group that only some members of a family have.
        **({"layer_groups": {"top": "post_bn"}} if arguments.get("use_pre_activation") else {}),
    }


def _image_arguments(whole: keras.Model) -> dict[str, Any]:
    """The constructor's arguments that are neither its defaults nor left to the family, as plain values."""
    backbone = type(whole).__name__
    parameters = inspect.signature(backbone_class(backbone).__init__).parameters
    shared = family_fields(FAMILIES[backbone])["constructor"]["arguments"]
    table = _TABLE_SHAPES.get(backbone)
    kept = {}
    for name, value in plain_arguments(whole).items():
        if name in _SHAPES and name != table:
            continue  # the size of pictures is not the architecture's
        default = parameters[name].default if name in parameters else inspect.Parameter.empty
        if name == table or name in shared or value != json.loads(json.dumps(default, default=str)):
            kept[name] = value
    return kept


def _sizes(backbone: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """What sizes of pictures must be multiples of, and the least that works."""
    if "patch_size" in arguments and backbone != "SwinTransformerBackbone":
        patch = arguments["patch_size"]
        patch = patch if isinstance(patch, int) else patch[0]
        return patch, 2 * patch
    if backbone == "SwinTransformerBackbone":
        step = arguments.get("patch_size", 4) * 2 ** (len(arguments["depths"]) - 1)
        return step, step * arguments["window_size"]  # the smallest map must hold one window
    if backbone == "MiTBackbone":
        step = 1
        for stride in arguments["layerwise_strides"]:
            step *= stride
        return step, 2 * step
    return 1, 32


def _size_of(converter: Any, whole: keras.Model, preset: str) -> int:
    sizes = converter.image_size if converter is not None else None
    sizes = sizes or tuple(whole.inputs[0].shape[1:3])
    if sizes[0] != sizes[1]:
        raise ConfigError(f"The preset {preset} takes pictures of {tuple(sizes)} pixels; tlkit's are square")
    return int(sizes[0] or 224)


def _resizing(converter: Any) -> dict[str, Any]:
    fit = "crop" if converter.crop_to_aspect_ratio else "stretch"
    return {
        "fit": "pad" if converter.pad_to_aspect_ratio else fit,
        "interpolation": converter.interpolation,
        "antialias": bool(converter.antialias),
        "fill": 0,  # KerasHub pads with black
    }


def _text_fields(whole: keras.Model, tokenizer: Any, family: str) -> dict[str, Any]:
    config = plain_arguments(whole)
    fields = family_fields(family)
    if family == "electra":  # the one class with a name of its own for it
        config["vocabulary_size"] = config.pop("vocab_size")
    numbers = {name: value for name, value in config.items() if isinstance(value, int | float)}
    arguments = {**fields["constructor"]["arguments"], **numbers}
    facts = dict(fields["input"]["tokenizer"])
    for fact in ("lowercase", "strip_accents"):
        if isinstance(getattr(tokenizer, fact, None), bool):
            facts[fact] = getattr(tokenizer, fact)
    pooler = "pooler" in fields["layer_groups"]
    return {
        "constructor": {"arguments": arguments},
        "input": {
            "sequence_length": arguments["max_sequence_length"],
            "tokenizer": {**facts, "files": _VOCABULARIES[facts["kind"]]},
        },
        "params": count_parameters(family, arguments, pooler=pooler),
    }
