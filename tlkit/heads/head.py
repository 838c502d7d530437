"""One head: layers to attach, loss, metrics, and the value that tells which epoch is best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tlkit.config import HeadConfig, Task
from tlkit.errors import ConfigError
from tlkit.heads.losses import make_loss
from tlkit.heads.own import attach_own, copy_metrics

POOLING = {
    "avg": (keras.layers.GlobalAveragePooling2D,),
    "max": (keras.layers.GlobalMaxPooling2D,),
    "avg_max": (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D),
}


@dataclass(frozen=True)
class Head:
    """A task head.

    Attributes:
        attach: Maps the backbone's features (`map`: float32 (N, h, w, C)) to the outputs: logits
            (N, classes), or values (N, targets) in the target's unit.
        loss: Takes targets and outputs.
        metrics: Makes new metrics for each compile.
        monitor: The logged value that tells which epoch is best.
        mode: `max` or `min` of that value.
    """

    task: Task
    n_outputs: int
    attach: Callable[[Mapping[str, Any]], Any]
    loss: Any
    metrics: Callable[[], list[Any]]
    monitor: str
    mode: str


def make_head(
    options: HeadConfig | None = None,
    task: Task = "classify",
    *,
    n_outputs: int,
    targets: np.ndarray | None = None,
    layer: Any = None,
    loss: Any = None,
    metrics: Any = None,
) -> Head:
    """Make a head.

    Args:
        options: Layers, regularisation and loss.
        task: `classify`, `multilabel` or `regress`.
        n_outputs: Classes, labels or target values.
        targets: Training targets (N,) or (N, targets) of a regression; their mean and deviation set
            its scale.
        layer: A Keras layer or function (feature map → outputs) in place of the layers of `options`. A layer
            is copied.
        loss: A Keras loss or function in place of `options.loss`. It sees logits, or values in the
            target's unit.
        metrics: One or several Keras metrics in place of the task's own; they see logits or values.

    Raises:
        ConfigError: The loss does not fit the task, `n_outputs` is too small, or `layer` or a metric
            cannot be made again from its config.
    """
    options = options or HeadConfig()
    if metrics is not None:
        copy_metrics(metrics)  # now, not when training begins
    if task == "classify" and n_outputs < 2:
        raise ConfigError(f"A classifier needs at least 2 classes, received {n_outputs}.")
    mean, deviation = _scale(options, task, targets, n_outputs)
    return Head(
        task=task,
        n_outputs=n_outputs,
        attach=attach_own(layer) if layer is not None else _layers(options, n_outputs, mean, deviation),
        loss=loss if loss is not None else make_loss(options, task, n_outputs, deviation),
        metrics=(lambda: copy_metrics(metrics)) if metrics is not None else lambda: _metrics(task),
        # The loss rises on examples that are confidently wrong while accuracy still improves.
        monitor="val_accuracy" if task == "classify" and metrics is None else "val_loss",
        mode="max" if task == "classify" and metrics is None else "min",
    )


def _layers(
    options: HeadConfig, n_outputs: int, mean: Any, deviation: Any
) -> Callable[[Mapping[str, Any]], Any]:
    def dense(units: int, activation: str | None, name: str) -> keras.layers.Layer:
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=options.initializer,
            kernel_regularizer=keras.regularizers.L1L2(options.l1, options.l2)
            if options.l1 or options.l2
            else None,
            name=name,
        )

    def attach(features: Mapping[str, Any]) -> Any:
        pooled = [
            layer(name=f"head_{layer.__name__.lower()}")(features["map"])
            for layer in POOLING[options.pooling]
        ]
        x = pooled[0] if len(pooled) == 1 else keras.layers.Concatenate(name="head_pooled")(pooled)
        for index, units in enumerate(options.hidden_units, start=1):
            x = _dropout(options.dropout, f"head_dropout{index}")(x)
            x = dense(units, options.activation, f"head_hidden{index}")(x)
        x = _dropout(options.dropout, "head_dropout")(x)
        x = dense(n_outputs, None, "head_output")(x)
        if np.all(np.asarray(mean) == 0.0) and np.all(np.asarray(deviation) == 1.0):
            return x
        return keras.layers.Rescaling(scale=deviation, offset=mean, name="head_unit")(x)

    return attach


def _dropout(rate: float, name: str) -> Callable[[Any], Any]:
    return keras.layers.Dropout(rate, name=name) if rate else lambda x: x


def _scale(options: HeadConfig, task: Task, targets: np.ndarray | None, n_outputs: int) -> tuple[Any, Any]:
    """Mean and deviation per target, as plain lists that a saved layer can hold."""
    if task != "regress" or targets is None or not options.standardize:
        return [0.0] * n_outputs, [1.0] * n_outputs
    values = np.asarray(targets, "float64").reshape(len(targets), -1)
    deviation = values.std(axis=0)
    return values.mean(axis=0).tolist(), np.where(deviation > 0, deviation, 1.0).tolist()


def _metrics(task: Task) -> list[Any]:
    if task == "classify":
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    if task == "multilabel":
        # The models give logits: a probability above 0.5 is a logit above 0.
        return [keras.metrics.BinaryAccuracy(name="binary_accuracy", threshold=0.0)]
    return [keras.metrics.MeanAbsoluteError(name="mae")]
