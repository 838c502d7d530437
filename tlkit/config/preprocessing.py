"""From raw bytes to model inputs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from tlkit.config.augment import Augment, parse_augment
from tlkit.config.base import Options


class PreprocessingConfig(Options):
    image_size: Annotated[int, pydantic.Field(ge=16, le=4096)] | None = None
    """Side of the square model input, in pixels. None: the backbone's own size, or less where that would blow
    the pictures up more than 8 times."""
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    """How a picture becomes square: stretched, centre-cropped, or padded."""
    augment: Augment = "default"
    """A policy's name, `none`, or a list of augmentations. Only training pictures are augmented."""

    @pydantic.field_validator("augment", mode="before")
    @classmethod
    def _parse_augment(cls, value: Any) -> Any:
        return parse_augment(value)
