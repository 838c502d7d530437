"""What all random changes of training examples have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pydantic

from tlkit.config.base import Options

Modality = Literal["image", "text"]


class Augmentation(Options):
    """One random change. A number `f` as a factor stands for the range from `-f` to `f`."""

    name: ClassVar[str]
    modality: ClassVar[Modality] = "image"

    @pydantic.model_serializer(mode="wrap")
    def _by_name(self, options: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {self.name: options(self)}

    @pydantic.model_validator(mode="after")
    def _ranges_ascend(self) -> Augmentation:
        for field, value in self:
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{field} must go from low to high, received {list(value)}")
        return self
