"""Text backbones that are trained from scratch: the yardstick for transfer, and for languages without one.

Each takes `token_ids` and `padding_mask`, int32 (N, T), of any T, and gives `{"sequence": (N, T, C)}`.
Padding changes nothing for the other positions, and its own features are zero. The layers are called
`embeddings`, `layer1`, `layer2` …. Every step between them starts from the mask itself, so that a model can
be cut there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import keras

Tensor: TypeAlias = keras.KerasTensor


def build_text_mlp(
    *,
    vocabulary_size: int,
    embedding_size: int,
    layers: int,
    width: int,
    activation: str,
    initializer: str,
    dropout: float,
) -> keras.Model:
    """Averaged embeddings and dense layers on them; C = width (Iyyer et al., ACL 2015).

    The mean over the sequence is what the dense layers make of the mean embedding. A position's own features
    are that plus how far its word, through the same layers, lies from the text's average word; so pooling by
    `mean` is the network of the paper, and a head that looks at single words sees them.
    """
    inputs, x = _embedded(vocabulary_size, embedding_size, dropout)
    mask = inputs["padding_mask"]
    # The mean travels through the layers as one more position, in front of the words.
    x = keras.ops.concatenate([_mean(x, mask), x], axis=1)
    for number in range(1, layers + 1):
        x = keras.layers.Dense(width, activation, kernel_initializer=initializer, name=f"layer{number}")(x)
        x = keras.layers.Dropout(dropout, name=f"layer{number}_dropout")(x)
    text, words = x[:, :1], x[:, 1:]
    return _model("text_mlp", inputs, _without_padding(text + words - _mean(words, mask), mask))


def build_text_cnn(
    *,
    vocabulary_size: int,
    embedding_size: int,
    layers: int,
    width: int,
    kernel_size: int,
    activation: str,
    initializer: str,
    dropout: float,
) -> keras.Model:
    """Stacked convolutions over `kernel_size` neighbouring words, without pooling between them; C = width."""

    def convolution(number: int) -> Callable[[Tensor, Tensor], Tensor]:
        layer = keras.layers.Conv1D(
            width,
            kernel_size,
            padding="same",
            activation=activation,
            kernel_initializer=initializer,
            name=f"layer{number}",
        )
        return lambda x, mask: layer(x)

    return _stacked("text_cnn", vocabulary_size, embedding_size, layers, dropout, convolution)


def build_text_bilstm(
    *,
    vocabulary_size: int,
    embedding_size: int,
    layers: int,
    width: int,
    activation: str,
    initializer: str,
    dropout: float,
) -> keras.Model:
    """Bidirectional LSTM layers with `width` units in each direction; C = 2 × width.

    With `activation: tanh` Keras takes the fast kernel where there is a GPU.
    """

    def recurrence(number: int) -> Callable[[Tensor, Tensor], Tensor]:
        lstm = keras.layers.LSTM(
            width, activation, kernel_initializer=initializer, return_sequences=True, name="lstm"
        )
        layer = keras.layers.Bidirectional(lstm, name=f"layer{number}")
        return lambda x, mask: layer(x, mask=keras.ops.cast(mask, "bool"))

    return _stacked("text_bilstm", vocabulary_size, embedding_size, layers, dropout, recurrence)


def _stacked(
    name: str,
    vocabulary_size: int,
    embedding_size: int,
    layers: int,
    dropout: float,
    make_layer: Callable[[int], Callable[[Tensor, Tensor], Tensor]],
) -> keras.Model:
    inputs, x = _embedded(vocabulary_size, embedding_size, dropout)
    for number in range(1, layers + 1):
        x = make_layer(number)(_without_padding(x, inputs["padding_mask"]), inputs["padding_mask"])
        x = keras.layers.Dropout(dropout, name=f"layer{number}_dropout")(x)
    return _model(name, inputs, _without_padding(x, inputs["padding_mask"]))


def _embedded(vocabulary_size: int, embedding_size: int, dropout: float) -> tuple[dict[str, Tensor], Tensor]:
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    x = keras.layers.Embedding(vocabulary_size, embedding_size, name="embeddings")(inputs["token_ids"])
    return inputs, keras.layers.Dropout(dropout, name="embeddings_dropout")(x)


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions that are not padding, (N, 1, C); zero where there are none."""
    count = keras.ops.sum(keras.ops.cast(mask, x.dtype), axis=1)[:, None, None]
    total = keras.ops.sum(_without_padding(x, mask), axis=1, keepdims=True)
    return total / keras.ops.maximum(count, 1)


def _without_padding(x: Tensor, mask: Tensor) -> Tensor:
    return x * keras.ops.cast(mask, x.dtype)[:, :, None]


def _model(name: str, inputs: dict[str, Tensor], sequence: Tensor) -> keras.Model:
    return keras.Model(inputs, {"sequence": sequence}, name=name)
