"""A backbone with a head on top."""

from __future__ import annotations

import keras

from tlkit.backbones import Backbone
from tlkit.errors import ConfigError
from tlkit.heads import Head


def build_model(backbone: Backbone, head: Head) -> keras.Model:
    """Attach a head to a backbone.

    The backbone stays one nested model, so that it can be taken out again and cut at its layer groups.

    Args:
        backbone: Gives a feature map float32 (N, h, w, C).
        head: Gives logits (N, classes) or values (N, targets).

    Returns:
        A functional model from float32 (N, H, W, 3) model inputs to the head's outputs, not compiled.

    Raises:
        ConfigError: A head of one's own gives another shape than the task needs.
    """
    inputs = keras.Input(backbone.model.input_shape[1:], name="inputs")
    outputs = head.attach({"map": backbone.model(inputs)})
    if tuple(outputs.shape) != (None, head.n_outputs):
        raise ConfigError(
            f"The head gives outputs of shape {tuple(outputs.shape)}; "
            f"the task {head.task!r} needs (None, {head.n_outputs})."
        )
    return keras.Model(inputs, outputs, name="tlkit_model")
