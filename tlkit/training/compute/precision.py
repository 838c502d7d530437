"""The number format in which the layers of a backbone compute while a stage trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from tlkit.backbones import SavedModelLayer
from tlkit.backbones.graph import is_functional
from tlkit.config import FixedPrecision
from tlkit.freezing import LayerGroup


@dataclass(frozen=True)
class Setting:
    """How a stage computes: in which precision, and whether XLA compiles its steps.

    Weights, their gradients, the head, the loss and what the optimizer keeps are float32 in any case.
    """

    precision: FixedPrecision = "float32"
    xla: bool = False

    def __str__(self) -> str:
        return f"{self.precision} with XLA" if self.xla else self.precision


def backbone_layers(model: keras.Model, groups: Sequence[LayerGroup]) -> list[keras.layers.Layer]:
    """The layers of a model that may compute in another precision: those of its backbone.

    The head is left out, because logits want all their digits, and because a layer of somebody's own there
    may not know of precisions. The graph of a SavedModel is float32 once and for all.
    """
    own = {id(layer) for group in groups for layer in group.layers}
    found = {
        id(layer): layer
        for part in model.layers
        if is_functional(part) and any(id(layer) in own for layer in part._flatten_layers())
        for layer in part._flatten_layers()
        if not isinstance(layer, keras.Model | keras.layers.InputLayer | SavedModelLayer)
    }
    return list(found.values())


@dataclass
class Casting:
    """Layers that compute in another precision inside of `applied`, and nowhere else.

    A layer's precision counts while its calls are traced. So it is changed for a training model's calls only:
    whatever else calls, describes or saves the layers meets them as they are.
    """

    layers: Sequence[keras.layers.Layer]
    precision: FixedPrecision
    _inside: int = 0
    _before: list[Any] = field(default_factory=list)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replicas are traced in turns, and one may leave while another is half-way: the last one out."""
        if not self._inside:
            self._before = [layer.dtype_policy for layer in self.layers]
            for layer in self.layers:
                layer.dtype_policy = self.precision
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                for layer, policy in zip(self.layers, self._before, strict=True):
                    layer.dtype_policy = policy
