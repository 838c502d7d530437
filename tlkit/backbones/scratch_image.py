"""A convolutional image backbone that is trained from scratch: the yardstick for transfer."""

from __future__ import annotations

import keras


def build_image_cnn(
    image_size: int,
    *,
    layers: int,
    width: int,
    kernel_size: int,
    activation: str,
    initializer: str,
    dropout: float,
) -> keras.Model:
    """Convolutions that halve the picture each: (N, size, size, 3) → (N, h, h, width · 2^(layers − 1)).

    h is size / 2^layers, rounded up. Each convolution is followed by a normalisation over the whole picture
    (GroupNormalization with one group: unlike BatchNorm it has no statistics, which a run that freezes them
    would leave untrained), the activation and max-pooling. The layers are called `layer1`, `layer2` ….
    """
    inputs = x = keras.Input((image_size, image_size, 3), name="image")
    for number in range(1, layers + 1):
        name = f"layer{number}"
        x = keras.layers.Conv2D(
            width * 2 ** (number - 1),
            kernel_size,
            padding="same",
            use_bias=False,  # the normalisation brings one
            kernel_initializer=initializer,
            name=name,
        )(x)
        x = keras.layers.GroupNormalization(1, name=f"{name}_norm")(x)
        x = keras.layers.Activation(activation, name=f"{name}_activation")(x)
        x = keras.layers.MaxPooling2D(padding="same", name=f"{name}_pool")(x)
        x = keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
    return keras.Model(inputs, x, name="image_cnn")
