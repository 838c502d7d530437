"""SavedModels of every kind, made from small Keras models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tlkit.backbones import Backbone
from tlkit.config import HeadConfig, TrainingConfig
from tlkit.freezing import group_layers
from tlkit.heads import make_head
from tlkit.model import build_model
from tlkit.plans import Stage
from tlkit.training.freeze import apply_freeze
from tlkit.training.optimizing.optimizer import make_optimizer
from tlkit.training.training_model import TrainingModel

L2 = 0.01


def small_cnn(size: int | None = 16, dropout: float = 0.0, name: str = "cnn") -> keras.Model:
    """Pictures (N, size, size, 3) to a map (N, size / 4, size / 4, 8), with BatchNorm in both blocks."""
    inputs = x = keras.Input((size, size, 3))
    for block, filters in (("block1", 6), ("block2", 8)):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False, name=f"{block}_conv")(
            x
        )
        x = keras.layers.BatchNormalization(name=f"{block}_bn")(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Dropout(dropout)(x) if dropout else x
    return keras.Model(inputs, x, name=name)


def small_text_encoder(vocabulary: int = 20, width: int = 8) -> keras.Model:
    """Token ids and mask (N, T) to `sequence_output` (N, T, C) and `pooled_output` (N, C)."""
    ids = keras.Input((None,), dtype="int32", name="input_word_ids")
    mask = keras.Input((None,), dtype="int32", name="input_mask")
    x = keras.layers.Embedding(vocabulary, width, name="embedding")(ids)
    there = keras.ops.expand_dims(keras.ops.cast(mask, "float32"), -1)
    x = keras.layers.Dense(width, activation="tanh", name="mix")(x * there)
    x = keras.layers.LayerNormalization(name="norm")(x)
    pooled = keras.layers.Dense(width, activation="tanh", name="pooler")(x[:, 0])
    outputs = {"sequence_output": x, "pooled_output": pooled}
    return keras.Model({"input_word_ids": ids, "input_mask": mask}, outputs)


def save_reusable(
    model: keras.Model,
    path: Path,
    *,
    l2: Sequence[Any] = (),
    inputs: Any = None,
    lists: bool = True,
    trainings: Sequence[bool] = (False, True),
    signature: bool = False,
) -> Path:
    """A SavedModel that can be called with `training=`; `lists`: with `variables` and their like. `l2` are
    the variables of one regularisation loss each, or the several of one. `trainings` are the values of
    `training` that it can be called with; `signature`: with one for inference."""
    module = tf.__internal__.tracking.AutoTrackable()
    specs = inputs or tf.nest.map_structure(
        lambda each: tf.TensorSpec(each.shape, each.dtype, each.name), model.input
    )

    @tf.function
    def call(inputs: Any, training: bool = False) -> Any:
        return model(inputs, training=training)

    for training in trainings:
        call.get_concrete_function(specs, training=training)
    module.__call__ = call
    module.held = [each.value for each in (*model.variables, *tf.nest.flatten(list(l2)))]
    if lists:
        module.variables = [each.value for each in model.variables]
        module.trainable_variables = [each.value for each in model.trainable_variables]
        module.regularization_losses = [_l2_of(*tf.nest.flatten(each)) for each in l2]
    answer = tf.function(lambda inputs: {"output": model(inputs, training=False)}).get_concrete_function(
        specs
    )
    tf.saved_model.save(module, str(path), signatures=answer if signature else None)
    return path


def save_signature(model: keras.Model, path: Path) -> Path:
    """A SavedModel with signatures alone, as Keras 3 writes it."""
    model.export(str(path), verbose=False)
    return path


def save_tf1(path: Path, size: int = 16) -> Path:
    """A SavedModel in the format of TensorFlow 1: a graph, without objects."""
    graph = tf.Graph()
    with graph.as_default():
        pictures = tf.compat.v1.placeholder(tf.float32, (None, size, size, 3), name="images")
        kernel = tf.compat.v1.get_variable("kernel", (3, 5), initializer=tf.compat.v1.ones_initializer())
        vectors = tf.reduce_mean(pictures, axis=(1, 2)) @ kernel
        with tf.compat.v1.Session(graph=graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.saved_model.simple_save(
                session, str(path), {"images": pictures}, {"default": vectors}
            )
    return path


class TextModule(tf.Module):
    """Strings (N,) to vectors (N, C): words from a vocabulary file, their embeddings averaged."""

    def __init__(self, vocabulary: Path, width: int = 8) -> None:
        super().__init__()
        size = len(vocabulary.read_text().splitlines()) + 1
        self.table = _table(vocabulary)
        self.embedding = tf.Variable(tf.random.stateless_normal((size, width), (1, 2)), name="embedding")
        self.unused = tf.Variable(1.0, name="unused")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        words = tf.strings.split(tf.strings.lower(texts))
        ids = words.with_values(self.table.lookup(words.values))
        vectors = words.with_values(tf.gather(self.embedding, ids.values))
        counts = tf.maximum(tf.cast(words.row_lengths(), tf.float32), 1.0)[:, None]
        return tf.reduce_sum(vectors, axis=1) / counts


class TextPreprocessor(tf.Module):
    """Strings (N,) to `input_word_ids` and `input_mask`, int32 (N, length)."""

    def __init__(self, vocabulary: Path, length: int = 12) -> None:
        super().__init__()
        self.table, self.length = _table(vocabulary), length

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        words = tf.strings.split(tf.strings.lower(texts))
        ids = tf.cast(self.table.lookup(words.values), tf.int32)
        ids = words.with_values(ids)
        mask = words.with_values(tf.ones_like(ids.values))
        shape = [None, self.length]
        return {
            "input_word_ids": ids.to_tensor(0, shape=shape),
            "input_mask": mask.to_tensor(0, shape=shape),
        }


def save_with_operation(path: Path, operation: Callable[[], Any], size: int = 8) -> Path:
    """A SavedModel that runs `operation` when it is called with pictures."""
    module = tf.Module()
    module.weight = tf.Variable(tf.ones((3, 2)))

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32)])
    def call(pictures: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies(tf.nest.flatten(operation())):
            return tf.reduce_mean(pictures, axis=(1, 2)) @ module.weight

    module.__call__ = call
    tf.saved_model.save(module, str(path))
    return path


def write_vocabulary(path: Path, words: Sequence[str]) -> Path:
    path.write_text("\n".join(words) + "\n")
    return path


def pictures(count: int = 8, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, size, size, 3), dtype="float32")


def with_head(backbone: Backbone, *, train: str = "all", batch_norm: str = "frozen", **options: Any) -> Any:
    """A model of two classes, frozen for a stage, and its layer groups."""
    head = make_head(HeadConfig(), "classify", n_outputs=2)
    model = build_model(backbone.for_head(head.uses_pooler), head)
    groups = group_layers(backbone)
    stage = Stage("stage", train, 1, 1e-2)
    apply_freeze(model, groups, stage, batch_norm)
    return model, groups, stage


def fit(
    model: keras.Model, x: Any, y: Any, optimizer: str = "adamw", rate: float = 1e-2, epochs: int = 4
) -> Any:
    training = TrainingModel(model.input, model.output)
    settings, stage = (
        TrainingConfig(optimizer=optimizer, schedule="constant"),
        Stage("all", "all", epochs, rate),
    )
    training.compile(
        make_optimizer(settings, stage, 10, training.trainable_variables),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return training.fit(x, y, batch_size=4, epochs=epochs, verbose=0, shuffle=False).history["loss"]


def _table(vocabulary: Path) -> tf.lookup.StaticVocabularyTable:
    initializer = tf.lookup.TextFileInitializer(
        str(vocabulary),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    return tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=1)


def _l2_of(*variables: keras.Variable) -> Any:
    held = [variable.value for variable in variables]
    return tf.function(lambda: L2 * tf.add_n([tf.nn.l2_loss(each) * 2 for each in held]), input_signature=[])
