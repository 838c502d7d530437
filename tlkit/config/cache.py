"""The feature cache: what frozen layers give, computed once for each example and stored."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic

from tlkit.config.base import Options

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_MOST_VIEWS = 32


class CacheConfig(Options):
    mode: Literal["auto", "memory", "disk", "off"] = "auto"
    """`auto`: where it saves time, on the disk, for later stages and runs, too; in memory where there is no
    room on the disk. `memory` is gone with the process. `off`: frozen layers compute every epoch again."""
    views: Literal["auto"] | Annotated[int, pydantic.Field(ge=1)] = "auto"
    """How many augmented versions of each training example are stored and drawn among. `auto`: all that there
    are where augmentation is flips alone, which then trains on the same pictures as without the cache; 1
    without augmentation; with any other augmentation no cache. A number is obeyed also where that saves no
    time, because it is other pictures that are trained on. At most 32: each is one more pass through the
    frozen layers, and an epoch reads one of them. As many as there are flips, or more, are all flips."""
    storage: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto`: float32 up to 512 MB, else float16."""
    limit: Annotated[int, pydantic.Field(ge=0)] = 20 * 2**30
    """The most bytes of all stored features; `20GB` is a number, too. What was not used for longest goes."""

    @pydantic.field_validator("views")
    @classmethod
    def _is_worth_its_passes(cls, views: Any) -> Any:
        if views != "auto" and views > _MOST_VIEWS:
            raise ValueError(
                f"should be at most {_MOST_VIEWS}: each is one more pass through the frozen layers, and "
                f"an epoch reads one of them, received {views}"
            )
        return views

    @pydantic.field_validator("limit", mode="before")
    @classmethod
    def _parse_limit(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"should be a number of bytes such as 500MB or 20GB, received {value!r}")
        return int(float(match[1]) * _UNITS[match[2].upper()])
