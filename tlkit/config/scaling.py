"""How a backbone's pictures are scaled, where its zoo entry does not know or is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from tlkit.errors import suggest
from tlkit.zoo.entry import Scaling

SCALINGS: Mapping[str, Scaling] = {
    "raw": Scaling(),  # 0 to 255
    "unit": Scaling(std=(255.0, 255.0, 255.0)),  # 0 to 1
    "symmetric": Scaling(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),  # −1 to 1
    "imagenet": Scaling(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    "caffe": Scaling(mean=(103.939, 116.779, 123.68), order="bgr"),
}


def parse_scaling(value: Any) -> Any:
    """A scaling's name, or its `mean`, `std` and `order`, as what pydantic validates. Raises ValueError."""
    if isinstance(value, str):
        if value not in SCALINGS:
            raise ValueError(f"unknown scaling {value!r}.{suggest(value, SCALINGS)}")
        return SCALINGS[value]
    return value


def make_scaling(value: str | Mapping[str, Any] | Scaling | None) -> Scaling | None:
    """A scaling from its name or its fields; None stays None. Raises ValueError where it is neither."""
    if value is None:
        return None
    try:
        return Scaling.model_validate(parse_scaling(value))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
