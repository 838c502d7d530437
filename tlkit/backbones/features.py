"""What a backbone for pictures offers to a head."""

from __future__ import annotations

import keras

from tlkit.backbones.keras_hub_tokens import class_token


def image_features(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """`map` (N, h, w, C), and `pooled` (N, C) of a vision transformer with a class token; or `pooled` alone,
    of a model that gives vectors."""
    if len(model.output.shape) == 2:
        return {"pooled": model.output}
    token = class_token(model)
    return {"map": model.output} | ({} if token is None else {"pooled": token})
