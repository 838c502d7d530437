"""The graph that an exported model consists of: its signatures, each from named inputs to named answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tlkit.backbones import saved_model_layers

Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Batch:
    """Examples to try a signature with: its inputs by name, and what each example is, for messages."""

    inputs: dict[str, tf.Tensor]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Signature:
    """One way to call an exported model.

    `serve` is a graph function whose parameters are named as `inputs` are; `batches` are what is compared.
    """

    inputs: tuple[tf.TensorSpec, ...]
    serve: Callable[..., Tensors]
    batches: tuple[Batch, ...]

    def trace(self) -> Any:
        """A new `tf.function` of it, with one concrete graph."""
        return tf.function(self.serve, input_signature=self.inputs)


@dataclass(frozen=True)
class Interface:
    """All that depends on whether pictures or texts come in.

    Attributes:
        signatures: By name; `serving_default` is among them.
        measured: The signature that takes the run's own examples, and takes them first.
        modules: What a Python process imports, beside TensorFlow, before it opens the model.
        trackables: The tables and other resources that the graphs use.
        description: What `input.json` says about the inputs and what happens to them inside.
        requests: For each signature the body of a request to TensorFlow Serving, as an example.
    """

    signatures: Mapping[str, Signature]
    measured: str
    modules: tuple[str, ...]
    trackables: Sequence[Any]
    description: dict[str, Any]
    requests: Mapping[str, dict[str, Any]]


def make_module(model: keras.Model, interface: Interface) -> tuple[tf.Module, dict[str, Any]]:
    """The module to save, and its signatures as concrete functions."""
    module = tf.Module()
    # The bare variables: the Keras object would be saved with its training state and its own functions.
    module.model_variables = [variable.value for variable in model.variables]
    module.trackables = list(interface.trackables)
    # The tables of a SavedModel in the model, which its functions look into.
    module.saved_models = [layer.opened.endpoint.owner for layer in saved_model_layers(model)]
    module.functions = {name: signature.trace() for name, signature in interface.signatures.items()}
    return module, {name: function.get_concrete_function() for name, function in module.functions.items()}


def add_assets(module: tf.Module, files: Sequence[Path]) -> None:
    """Let files travel with the module."""
    module.asset_files = [tf.saved_model.Asset(str(file)) for file in files]


def make_predict(model: keras.Model, to_scores: Callable[[Any], Any]) -> Callable[[Any], tf.Tensor]:
    """A graph function from model inputs, a tensor or a dict of them, to float32 scores or values.

    It answers an empty batch, too: oneDNN's convolution gives that the shape of its input instead of its
    output, and what follows fails (tried: TensorFlow 2.21.0; with TF_ENABLE_ONEDNN_OPTS=0 it does not).
    """
    names = [tensor.name for tensor in model.inputs]

    def predict(inputs: Any) -> tf.Tensor:
        if isinstance(inputs, dict):  # an input that the model has no use for would be a warning
            inputs = {name: inputs[name] for name in names}
        n = tf.shape(next(iter(tf.nest.flatten(inputs))))[0]
        scores = to_scores(model(tf.nest.map_structure(_never_empty, inputs), training=False))
        return tf.cast(scores, tf.float32)[:n]

    return predict


def custom_ops(functions: Mapping[str, Any]) -> tuple[str, ...]:
    """The operations of concrete functions that TensorFlow itself does not have."""
    graphs = [function.graph.as_graph_def() for function in functions.values()]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for inner in graph.library.function for node in inner.node_def]
    kinds = {node.op for node in nodes} - {
        inner.signature.name for g in graphs for inner in g.library.function
    }
    return tuple(sorted(kind for kind in kinds if not hasattr(tf.raw_ops, kind) and not kind.startswith("_")))


def make_batches(
    examples: Sequence[tuple[str, Any]], stack: Callable[[list[Any]], Tensors]
) -> tuple[Batch, ...]:
    """Pairs of a name and an example as batches of 8, then a batch of one and an empty one."""
    chunks = [examples[start : start + 8] for start in range(0, len(examples), 8)]
    return tuple(
        Batch(stack([example for _, example in chunk]), tuple(name for name, _ in chunk))
        for chunk in [*chunks, examples[:1], examples[:0]]
    )


def _never_empty(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor (N, …), with one example of zeros where there are none."""
    missing = tf.cast(tf.equal(tf.shape(tensor)[0], 0), tf.int32)
    padded = tf.pad(tensor, [[0, missing], *[[0, 0]] * (tensor.shape.rank - 1)])
    return tf.ensure_shape(padded, [None, *tensor.shape[1:]])
