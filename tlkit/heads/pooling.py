"""From a feature map or a sequence to one vector for each example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tlkit.errors import ConfigError

MAP = {
    "avg": (keras.layers.GlobalAveragePooling2D,),
    "max": (keras.layers.GlobalMaxPooling2D,),
    "avg_max": (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D),
}
SEQUENCE = ("mean", "max", "cls")


def pool(features: Mapping[str, Any], pooling: str) -> Any:
    """Vectors (N, C) of pictures' `map` (N, h, w, C) or `pooled` (N, C), or of texts' `sequence` (N, T, C).

    Of pictures, `cls` is `pooled`: the class token, or the vectors of a backbone that gives nothing else, for
    which `auto` is the same.

    Of a sequence, `mean` and `max` are over the tokens that `mask` (N, T) has (all of them where there is no
    mask; where it is empty the vector means nothing, but is finite). `cls` is `pooled` (N, C) where the
    backbone has a pooler, else the first token. `auto` is `avg` of a map and `mean` of a sequence.

    Raises:
        ConfigError: The pooling is not one for such features.
    """
    allowed = _allowed(features)
    if pooling == "auto":
        pooling = allowed[0]
    if pooling not in allowed:
        of_what = "the sequence of texts" if "sequence" in features else "what the backbone gives of pictures"
        raise ConfigError(
            f"head.pooling: {pooling!r} does not fit {of_what}. Allowed: auto, {', '.join(allowed)}."
        )
    if "sequence" not in features and pooling == "cls":
        return features["pooled"]
    if "map" in features:
        pooled = [layer(name=f"head_{layer.__name__.lower()}")(features["map"]) for layer in MAP[pooling]]
        return pooled[0] if len(pooled) == 1 else keras.layers.Concatenate(name="head_pooled")(pooled)
    sequence, mask = features["sequence"], features.get("mask")
    if pooling == "cls":
        return features["pooled"] if "pooled" in features else keras.ops.take(sequence, 0, axis=1)
    if mask is None:
        return (keras.ops.mean if pooling == "mean" else keras.ops.max)(sequence, axis=1)
    # Not GlobalAveragePooling1D: it divides by zero where the mask is empty, as that of a missing window is.
    real = keras.ops.expand_dims(keras.ops.cast(mask, sequence.dtype), -1)
    if pooling == "mean":
        total = keras.ops.sum(sequence * real, axis=1)
        return total / keras.ops.maximum(keras.ops.sum(real, axis=1), 1)
    # Padding becomes the least value, which never is above a real one, whatever the dtype.
    least = keras.ops.min(sequence, axis=1, keepdims=True)
    return keras.ops.max(keras.ops.where(real > 0, sequence, least), axis=1)


def _allowed(features: Mapping[str, Any]) -> tuple[str, ...]:
    if "sequence" in features:
        return SEQUENCE
    of_map = tuple(MAP) if "map" in features else ()
    return (*of_map, "cls") if "pooled" in features else of_map
