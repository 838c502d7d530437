"""What a run can take as Python objects, which no config file can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class PythonObjects:
    """Objects that stand in for parts of the config. None: the config decides.

    Attributes:
        data: A DataFrame, `(inputs, labels)`, or a `tf.data.Dataset`.
        head: A Keras layer or function from the feature map (N, h, w, C) to the outputs (N, n).
        loss: A Keras loss, or a function of targets and outputs.
        metrics: Keras metrics, shown and logged while training.
        augment: A Keras layer or function over a batch of uint8 pictures (N, H, W, 3).
        callbacks: Keras callbacks, run in every stage after tlkit's own.
    """

    data: Any = None
    head: Any = None
    loss: Any = None
    metrics: Sequence[Any] | None = None
    augment: Callable[..., Any] | None = None
    callbacks: Sequence[Any] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Which ones were given."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return tuple(
            name for name, value in given if value is not None and not (name == "callbacks" and not value)
        )
