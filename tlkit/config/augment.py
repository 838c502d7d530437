"""Which random changes training examples go through: a policy's name, `none`, or a list of augmentations.

Names and arguments for pictures are those of Keras's own layers (`random_flip` is `keras.layers.RandomFlip`).
In a list each item is a name, or a name with its options: `[random_flip, {random_rotation: {factor: 0.05}}]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from tlkit.config.augmentation import Augmentation as Augmentation
from tlkit.config.augmentation import Modality
from tlkit.config.head import Task
from tlkit.config.text_augment import TEXT_AUGMENTATIONS
from tlkit.errors import ConfigError, suggest

FillMode = Literal["reflect", "constant", "wrap", "nearest"]
Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Signed = Annotated[float, pydantic.Field(ge=-1.0, le=1.0)]
ZoomBound = Annotated[float, pydantic.Field(gt=-1.0, le=1.0)]


class _Moving(Augmentation):
    fill_mode: FillMode = "reflect"
    """What appears where the picture was moved away."""
    fill_value: Annotated[float, pydantic.Field(ge=0.0, le=255.0)] = 0.0
    """Grey level (0–255) for `fill_mode: constant`."""


class RandomFlip(Augmentation):
    name: ClassVar[str] = "random_flip"
    mode: Literal["horizontal", "vertical", "horizontal_and_vertical"] = "horizontal_and_vertical"
    """Each way that is named is drawn on its own, with even chances (Keras 3.15 draws once for both)."""


class RandomRotation(_Moving):
    name: ClassVar[str] = "random_rotation"
    factor: Signed | tuple[Signed, Signed] = 0.05
    """Shares of a full turn; positive is counter-clockwise."""


class RandomZoom(_Moving):
    name: ClassVar[str] = "random_zoom"
    height_factor: ZoomBound | tuple[ZoomBound, ZoomBound] = 0.1
    """Positive zooms out, negative zooms in."""
    width_factor: ZoomBound | tuple[ZoomBound, ZoomBound] | None = None
    """None: the width follows the height."""


class RandomTranslation(_Moving):
    name: ClassVar[str] = "random_translation"
    height_factor: Signed | tuple[Signed, Signed] = 0.1
    """Shares of the height; positive is downwards."""
    width_factor: Signed | tuple[Signed, Signed] = 0.1
    """Shares of the width; positive is to the right."""


class RandomCrop(Augmentation):
    """A random square of the picture, scaled back to the picture's size."""

    name: ClassVar[str] = "random_crop"
    scale: tuple[Annotated[float, pydantic.Field(gt=0.0, le=1.0)], Share] = (0.6, 1.0)
    """Lowest and highest share of the picture's area that is kept."""


class RandomContrast(Augmentation):
    name: ClassVar[str] = "random_contrast"
    factor: Share | tuple[Share, Share] = 0.1
    """Two numbers `a, b`: contrast from `1 - a` to `1 + b`, about the mean of each channel."""

    @pydantic.model_validator(mode="after")
    def _ranges_ascend(self) -> RandomContrast:
        return self  # its two numbers are not a range: each is a distance from 1


class RandomBrightness(Augmentation):
    name: ClassVar[str] = "random_brightness"
    factor: Signed | tuple[Signed, Signed] = 0.1
    """Shares of the full range of 0–255 that are added."""


class GaussianNoise(Augmentation):
    name: ClassVar[str] = "gaussian_noise"
    stddev: Annotated[float, pydantic.Field(ge=0.0, le=255.0)] = 5.0
    """In grey levels (0–255)."""


class RandAugment(Augmentation):
    """Cubuk et al., arXiv:1909.13719, with the operations of Keras's layer."""

    name: ClassVar[str] = "rand_augment"
    num_ops: Annotated[int, pydantic.Field(ge=1, le=11)] = 2
    factor: Share = 0.5
    """Strength of each operation."""


_KINDS: tuple[type[Augmentation], ...] = (
    RandomFlip,
    RandomRotation,
    RandomZoom,
    RandomTranslation,
    RandomCrop,
    RandomContrast,
    RandomBrightness,
    GaussianNoise,
    RandAugment,
    *TEXT_AUGMENTATIONS,
)
AUGMENTATIONS: dict[str, type[Augmentation]] = {kind.name: kind for kind in _KINDS}

# `default` is for pictures without a fixed up or down; what is written or drawn wants `none`. For texts it
# is nothing: a changed word can be another label's.
POLICIES: dict[str, tuple[Augmentation, ...]] = {
    "none": (),
    "flip_horizontal": (RandomFlip(mode="horizontal"),),
    "flips": (RandomFlip(),),
    "default": (RandomFlip(),),
}

Augment = str | tuple[pydantic.SerializeAsAny[Augmentation], ...]


def parse_augment(value: Any) -> Any:
    """A policy's name as it is, a list as a tuple of options objects. Raises ValueError with all mistakes."""
    if value is None:
        return "none"
    if isinstance(value, str):
        if value in POLICIES:
            return value
        if value not in AUGMENTATIONS:
            known = [*POLICIES, *AUGMENTATIONS]
            raise ValueError(
                f"unknown policy {value!r}.{suggest(value, known)} A list of augmentations is one, too."
            )
    if isinstance(value, str | Mapping | Augmentation):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a policy's name, none, or a list of augmentations, received {value!r}")
    parsed: list[Augmentation] = []
    mistakes: list[str] = []
    for number, item in enumerate(value):
        if isinstance(item, Augmentation):
            parsed.append(item)
            continue
        named = {item: {}} if isinstance(item, str) else item
        if not isinstance(named, Mapping) or not named:
            mistakes.append(f"item {number} must be a name, or a name with its options, received {item!r}")
            continue
        for name, options in named.items():
            made = _make(name, options)
            if isinstance(made, Augmentation):
                parsed.append(made)
            else:
                mistakes += made
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return tuple(parsed)


def resolve_augment(
    spec: str | tuple[Augmentation, ...], modality: Modality = "image", task: Task = "classify"
) -> tuple[Augmentation, ...]:
    """The augmentations that a parsed value stands for, in the order in which they are applied.

    `default` is none for texts. Raises ConfigError where one is not for the modality or the task.
    """
    if spec == "default" and modality == "text":
        return ()
    augmentations = POLICIES[spec] if isinstance(spec, str) else spec
    wrong = [options.name for options in augmentations if options.modality != modality]
    if wrong:
        fitting = [name for name, kind in AUGMENTATIONS.items() if kind.modality == modality]
        raise ConfigError(
            f"preprocessing.augment: {', '.join(map(repr, wrong))} is not for {modality}s. "
            f"Allowed: none, {', '.join(fitting)}."
        )
    if augmentations and task == "tokens":
        raise ConfigError(
            f"preprocessing.augment: {augmentations[0].name!r} cannot be used for task 'tokens', whose tags "
            "would no longer stand at their words. Use augment: none."
        )
    return augmentations


def _make(name: Any, options: Any) -> Augmentation | list[str]:
    """One augmentation, or all that is wrong with its options."""
    if name not in AUGMENTATIONS:
        return [f"unknown augmentation {name!r}.{suggest(str(name), AUGMENTATIONS)}"]
    if options is not None and not isinstance(options, Mapping):
        return [f"{name}: its options must be a mapping, received {options!r}"]
    try:
        return AUGMENTATIONS[name].model_validate(dict(options or {}))
    except pydantic.ValidationError as error:
        # A field that takes a number or a pair reports either; the first is the one that was meant.
        problems = {problem["loc"][:1]: problem for problem in reversed(error.errors())}
        return [_describe(name, problem) for problem in reversed(problems.values())]


def _describe(name: str, problem: Any) -> str:
    option = str(problem["loc"][0]) if problem["loc"] else ""
    path = f"{name}.{option}" if option else name
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown option.{suggest(option, AUGMENTATIONS[name].model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    received = "" if "received" in message else f", received {problem['input']!r}"
    return f"{path}: {message[:1].lower()}{message[1:]}{received}"
