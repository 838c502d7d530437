"""What a run can take as Python objects, which no config file can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras

from tlkit.errors import ConfigError

PYTHON_MODEL = "python:"  # what a config calls a backbone that was an object begins with it


@dataclass(frozen=True)
class PythonObjects:
    """Objects that stand in for parts of the config. None: the config decides.

    Attributes:
        data: A DataFrame, `(inputs, labels)`, a `tf.data.Dataset`, or a data set of Hugging Face.
        backbone: A functional Keras model for pictures. It is copied, and cut below its head.
        head: A Keras layer or function from the feature map (N, h, w, C) to the outputs (N, n).
        loss: A Keras loss, or a function of targets and outputs.
        metrics: One or several Keras metrics, shown and logged while training.
        augment: A Keras layer or function over a batch of uint8 pictures (N, H, W, 3).
        callbacks: Keras callbacks, run in every stage after tlkit's own.
    """

    data: Any = None
    backbone: keras.Model | None = None
    head: Any = None
    loss: Any = None
    metrics: Any = None
    augment: Callable[..., Any] | None = None
    callbacks: Sequence[Any] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Which ones were given."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return tuple(
            name for name, value in given if value is not None and not (name == "callbacks" and not value)
        )


def as_callbacks(given: Any) -> tuple[keras.callbacks.Callback, ...]:
    """Keras callbacks from one or several callbacks or functions of (epoch, logs).

    Raises:
        ConfigError: One is neither.
    """
    several = given if isinstance(given, Sequence) else [given]
    return tuple(_as_callback(callback) for callback in several)


def _as_callback(callback: Any) -> keras.callbacks.Callback:
    if isinstance(callback, keras.callbacks.Callback):
        return callback
    if callable(callback) and not isinstance(callback, type):
        return keras.callbacks.LambdaCallback(on_epoch_end=callback)
    raise ConfigError(
        f"callbacks: expected Keras callbacks, or functions of (epoch, logs), received {callback!r}."
    )


def as_augment(given: Any) -> Callable[..., Any] | None:
    """One function over pictures from Keras layers or functions; None for what the config can hold.

    Raises:
        ConfigError: A list has both objects and what the config holds.
    """
    if given is None or isinstance(given, str):
        return None
    if not isinstance(given, list | tuple):
        return given  # type: ignore[no-any-return]
    objects = [step for step in given if callable(step)]
    if not objects:
        return None
    if len(objects) < len(given):
        raise ConfigError(
            "augment: a list holds either names of augmentations, or Keras layers and functions, not both."
        )

    def augment(pictures: Any) -> Any:
        for step in objects:
            pictures = (
                step(pictures, training=True) if isinstance(step, keras.layers.Layer) else step(pictures)
            )
        return pictures

    return augment
