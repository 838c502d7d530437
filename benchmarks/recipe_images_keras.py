"""The side of `recipe_images.py` that is plain Keras."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

BATCH_SIZE = 32
DROPOUT = 0.2
MEAN, DEVIATION = 127.0, 128.0
# Layers of EfficientNet-Lite0 that a stage trains, by how their names begin.
PARTS = {"head": (), "half": ("block5", "block6", "block7", "top"), "all": ("",)}


def run_keras(arguments: argparse.Namespace) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    from tlkit import load_backbone

    known = json.loads((arguments.scratch / "examples.json").read_text(encoding="utf-8"))
    size = known["image_size"]
    keras.utils.set_random_seed(arguments.repeat)
    history: list[tuple[float, float]] = []
    started = time.perf_counter()
    backbone = load_backbone("efficientnet_lite0", image_size=size).model  # Keras itself does not have it
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / DEVIATION, offset=-MEAN / DEVIATION)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(backbone(x, training=False))
    x = keras.layers.Dropout(DROPOUT)(x)
    model = keras.Model(inputs, keras.layers.Dense(len(known["classes"]))(x))

    def decode(path: Any, label: Any) -> tuple[Any, Any]:
        picture = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        picture = tf.image.resize(picture, (size, size), antialias=True)
        return tf.cast(tf.round(picture), tf.uint8), label

    def flip(pictures: Any, labels: Any) -> tuple[Any, Any]:
        return tf.image.random_flip_up_down(tf.image.random_flip_left_right(pictures)), labels

    def dataset(name: str) -> tf.data.Dataset:
        paths, labels = known["splits"][name]["paths"], known["splits"][name]["labels"]
        files = tf.data.Dataset.from_tensor_slices((paths, labels))
        decoded = files.map(decode, num_parallel_calls=tf.data.AUTOTUNE).cache()
        if name != "train":
            return decoded.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
        batches = decoded.shuffle(len(paths)).batch(BATCH_SIZE)
        return batches.map(flip, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    train, validation = dataset("train"), dataset("validation")
    for stage in arguments.stages:
        part, epochs = stage.split(":")
        backbone.trainable = True
        for layer in backbone.layers:
            trains = layer.name.startswith(PARTS[part])
            layer.trainable = trains and not isinstance(layer, keras.layers.BatchNormalization)
        model.compile(
            keras.optimizers.Adam(arguments.head_rate if part == "head" else arguments.rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: history.append(
                (time.perf_counter() - started, logs["val_accuracy"])
            )
        )
        best = keras.callbacks.EarlyStopping(
            "val_accuracy", mode="max", patience=arguments.patience, restore_best_weights=True
        )
        model.fit(train, validation_data=validation, epochs=int(epochs), callbacks=[note, best], verbose=2)
    _, accuracy = model.evaluate(dataset("test"), verbose=0)
    return {
        "seconds": time.perf_counter() - started,
        "test_accuracy": float(accuracy),
        "stages": arguments.stages,
        "history": history,
    }
