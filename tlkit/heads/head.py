"""One head: layers to attach, loss, metrics, and the value that tells which epoch is best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlkit.config import HeadConfig
from tlkit.config.head import Objective
from tlkit.errors import ConfigError
from tlkit.heads.layers import Attach, attach_examples, attach_vectors, attach_words
from tlkit.heads.losses import make_loss
from tlkit.heads.metrics import find_monitor, make_metrics
from tlkit.heads.own import attach_own, copy_metrics
from tlkit.heads.pair_losses import make_pair_loss
from tlkit.heads.weights import class_weights


@dataclass(frozen=True)
class Head:
    """What is attached on top of a backbone.

    Attributes:
        task: What it learns; a pair of texts is classified or regressed.
        n_outputs: The last axis of what it gives. None: as wide as the features (`embed`).
        attach: Maps the backbone's features to the outputs. Features are `map`, float32 (N, h, w, C), or
            `sequence`, float32 (N, T, C), with `mask`, int32 (N, T), where padding is told apart, `pooled`,
            float32 (N, C), where the backbone has a pooler, and `word_starts`, int32 (N, W), for `tokens`.
            Outputs are logits (N, classes), values (N, targets) in the target's unit, logits of words
            (N, W, tags), or vectors of length 1, (N, d).
        loss: Takes targets and outputs. Targets of `tokens` are int32 (N, W), below 0 where there is no word;
            those of `embed` float32 (2N,): outputs are pairs, row after row, and each pair's score is there
            twice.
        metrics: Makes new metrics for each compile.
        monitor: The logged value that tells which epoch is best.
        mode: `max` or `min` of that value.
        uses_pooler: Whether `attach` looks at `pooled`, where it is offered.
    """

    task: Objective
    n_outputs: int | None
    attach: Callable[[Mapping[str, Any]], Any]
    loss: Any
    metrics: Callable[[], list[Any]]
    monitor: str
    mode: str
    uses_pooler: bool = False


def make_head(
    options: HeadConfig | None = None,
    objective: Objective = "classify",
    *,
    n_outputs: int | None = None,
    targets: Any = None,
    classes: Sequence[str] | None = None,
    layer: Any = None,
    loss: Any = None,
    metrics: Any = None,
) -> Head:
    """Make a head.

    Args:
        options: Layers, regularisation and loss.
        objective: `classify`, `multilabel`, `regress`, `tokens` or `embed`.
        n_outputs: Classes, labels, target values or tags. `embed` needs none.
        targets: Training targets. Of a regression, (N,) or (N, targets): their mean and deviation set its
            scale. Of `embed`, the scores: their range is the scale of the loss `cosine`, and where all are
            missing (NaN or None) `auto` is `ranking`. Of `multilabel` and `tokens`: `class_weight: balanced`
            counts them. `classify` looks at none: weights of its classes are `example_weights`.
        classes: Names of the classes, labels or tags. With an `O` among tags, `word_f1` tells which epoch is
            best.
        layer: A Keras layer or function (feature map → outputs; of texts: sequence, or for tags the vectors
            of words, and a keyword `mask` if it takes one) in place of the layers of `options`. A layer is
            copied.
        loss: A Keras loss or function in place of `options.loss`. It sees what `attach` gives.
        metrics: One or several Keras metrics in place of the task's own; they see what `attach` gives.

    Raises:
        ConfigError: Loss or pooling does not fit, `n_outputs` is too small, or `layer` or a metric cannot be
            made again from its config.
    """
    options = options or HeadConfig()
    if loss is not None and options.class_weight != "none" and objective in ("multilabel", "tokens"):
        raise ConfigError(
            f"head.class_weight is a part of the loss of task {objective!r}, and this run has a loss of its "
            "own. Use class_weight: none, and weigh there."
        )
    if metrics is not None:
        copy_metrics(metrics)  # now, not when training begins
    if objective != "embed":
        n_outputs = _checked(n_outputs, objective)
    elif options.hidden_units:
        n_outputs = options.hidden_units[-1]
    scored = objective == "embed" and not _all_missing(targets)
    mean, deviation = _scale(options, objective, targets, n_outputs or 1)
    monitor, mode = find_monitor(objective, classes, scored) if metrics is None else ("val_loss", "min")
    return Head(
        task=objective,
        n_outputs=n_outputs,
        attach=attach_own(layer, objective)
        if layer is not None
        else _layers(options, objective, n_outputs or 0, mean, deviation),
        loss=loss
        if loss is not None
        else _loss(options, objective, n_outputs or 0, deviation, targets, classes),
        metrics=lambda: (
            make_metrics(objective, classes, scored) if metrics is None else copy_metrics(metrics)
        ),
        monitor=monitor,
        mode=mode,
        uses_pooler=layer is None and objective != "tokens" and options.pooling == "cls",
    )


def _checked(n_outputs: int | None, objective: Objective) -> int:
    if n_outputs is None:
        raise ConfigError(
            f"A head for {objective!r} needs n_outputs: how many classes, labels, values or tags."
        )
    if objective in ("classify", "tokens") and n_outputs < 2:
        names = (
            "A classifier needs at least 2 classes" if objective == "classify" else "A tagger needs 2 tags"
        )
        raise ConfigError(f"{names}, received {n_outputs}.")
    return n_outputs


def _layers(
    options: HeadConfig, objective: Objective, n_outputs: int, mean: list[float], deviation: list[float]
) -> Attach:
    if objective == "embed":
        return attach_vectors(options)
    if objective == "tokens":
        if options.pooling != "auto":
            raise ConfigError(
                f"head.pooling: task 'tokens' answers for every word and pools none, received "
                f"{options.pooling!r}. Use pooling: auto."
            )
        return attach_words(options, n_outputs)
    return attach_examples(options, n_outputs, mean, deviation)


def _loss(
    options: HeadConfig,
    objective: Objective,
    n_outputs: int,
    deviation: Any,
    targets: Any,
    classes: Sequence[str] | None,
) -> Any:
    if objective == "embed":
        return make_pair_loss(options, targets)
    weights = None
    known = targets is not None or options.class_weight != "balanced"
    if objective in ("multilabel", "tokens") and known:
        weights = class_weights(options.class_weight, objective, targets, classes)
    return make_loss(options, objective, n_outputs, deviation, None if weights is None else weights.tolist())


def _all_missing(scores: Any) -> bool:
    return scores is not None and bool(np.isnan(np.asarray(scores, "float32")).all())


def _scale(
    options: HeadConfig, objective: Objective, targets: Any, n_outputs: int
) -> tuple[list[float], list[float]]:
    """Mean and deviation per target, as plain lists that a saved layer can hold."""
    if objective != "regress" or targets is None or not options.standardize:
        return [0.0] * n_outputs, [1.0] * n_outputs
    values = np.asarray(targets, "float64").reshape(len(targets), -1)
    deviation = values.std(axis=0)
    return values.mean(axis=0).tolist(), np.where(deviation > 0, deviation, 1.0).tolist()
