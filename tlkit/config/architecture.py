"""The shape of a backbone that is trained from scratch; a pretrained one has its own."""

from __future__ import annotations

from typing import Annotated

import pydantic

from tlkit.config.base import Options
from tlkit.config.head import Activation, Initializer

Count = Annotated[int, pydantic.Field(ge=1)]


class ArchitectureConfig(Options):
    """None: what the architecture's zoo entry says."""

    layers: Count | None = None
    """Hidden layers: dense (`text_mlp`), convolutions (`text_cnn`, `image_cnn`), LSTMs (`text_bilstm`)."""
    width: Count | None = None
    """Units or filters of a hidden layer; `image_cnn` doubles them with every layer."""
    embedding_size: Count | None = None
    """Texts: width of a word's vector."""
    vocabulary_size: Annotated[int, pydantic.Field(ge=10)] | None = None
    """Texts: most words of the vocabulary, which is learned from the training split."""
    kernel_size: Count | None = None
    """Side of the convolutions' windows, in words or pixels."""
    activation: Activation | None = None
    """Activation of the hidden layers."""
    initializer: Initializer | None = None
    """Initial values of the kernels."""
    dropout: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] | None = None
    """Dropout rate after the embedding and each hidden layer."""
