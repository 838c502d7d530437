"""How good a model is on a split, by what it learned. The numbers are scikit-learn's and SciPy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
import sklearn.metrics

from tlkit.config.head import Objective
from tlkit.errors import DataError, TrainingError
from tlkit.evaluation.entities import measure_tags
from tlkit.evaluation.similarity import measure_vectors

THRESHOLD = 0.5
"""Multi-label: a label is predicted where its score is above this."""

TOP_K = 5


def compute_metrics(
    objective: Objective,
    targets: Any,
    scores: Any,
    classes: Sequence[str] | None,
    loss: float | None = None,
) -> dict[str, Any]:
    """The metrics of one split.

    Args:
        objective: `classify`, `multilabel`, `regress`, `tokens` or `embed`.
        targets: Class numbers (N,); or 0/1 per label (N, labels); or values (N,) or (N, values). `tokens`:
            for each sentence the numbers of its words' tags, int (words,). `embed`: the scores of the pairs,
            (N,), or (2N,) with each of them twice; NaN where a pair has none.
        scores: Probabilities (N, classes) or (N, labels); or predicted values, shaped like `targets`.
            `tokens`: for each sentence the probabilities (W, tags), or the numbers of the predicted tags
            (W,); what is above the number of its words is padding, and words without scores or with equal
            ones are taken for `O`. `embed`: vectors (2N, d), pairs row after row, or (N, 2, d).
        classes: Names of the classes, labels, values or tags, in the order of the columns. None: they have
            none (a regression, vectors), and their numbers are used.
        loss: The mean loss on the split, if it was computed.

    Returns:
        Plain numbers by name, all of them finite. What cannot be computed on this split is left out, and
        `absent` maps its name to the reason. Averages over classes (`_macro`) are over those that occur in
        the targets or the predictions, as scikit-learn does; undefined precision and recall count as 0.

        - classify: `accuracy`, `top5_accuracy` (more than 5 classes), `precision_macro`, `recall_macro`,
          `f1_macro`, `f1_micro`, `auc` (one class against the rest, averaged over the classes), `per_class`.
        - multilabel: `accuracy` (exact match: the share of examples with every label right),
          `precision_macro`, `recall_macro`, `f1_macro`, `f1_micro`, `auc` (averaged over the labels),
          `per_class`; a label counts as predicted where its score is above 0.5.
        - regress: `mae`, `rmse`, `r2`, `spearman`, averaged over the values where there are several, and
          then `per_value`.
        - tokens: `accuracy` (of words); `precision`, `recall` and `entity_f1` of whole entities, counted as
          conlleval and seqeval do; `per_class` for each type of entity.
        - embed: `spearman` and `pearson` of the cosines; without any scores `accuracy_at_1` and `mrr` of each
          pair's second text among all second texts.

    Raises:
        DataError: The split has no examples.
        TrainingError: A score is not finite.
    """
    if len(targets) == 0:
        raise DataError("Cannot compute metrics: the split has no examples.")
    broken = sum(not np.isfinite(np.asarray(row, np.float64)).all() for row in scores)
    if broken:
        raise TrainingError(
            f"The model gives scores that are not finite for {broken} of {len(scores)} examples."
        )
    metrics, absent = _measure(objective, targets, scores, classes)
    if loss is not None and np.isfinite(loss):
        metrics["loss"] = float(loss)
    elif loss is not None:
        absent["loss"] = "it is not finite"
    if absent:
        metrics["absent"] = absent
    return metrics


Metrics = tuple[dict[str, Any], dict[str, str]]


def _measure(objective: Objective, targets: Any, scores: Any, classes: Sequence[str] | None) -> Metrics:
    if objective == "tokens":
        return measure_tags(targets, scores, classes or ())
    if objective == "embed":
        return measure_vectors(targets, scores)
    targets, scores = np.asarray(targets), np.asarray(scores, np.float64)
    compute = {"classify": _classify, "multilabel": _multilabel, "regress": _regress}[objective]
    columns = scores.shape[1] if scores.ndim == 2 else 1
    names = list(classes) if classes else [str(number) for number in range(columns)]
    return compute(targets, scores, names)


def _classify(targets: np.ndarray, scores: np.ndarray, classes: list[str]) -> Metrics:
    targets = targets.astype(np.int64).reshape(-1)
    predicted = scores.argmax(axis=1)
    metrics: dict[str, Any] = {"accuracy": float(np.mean(predicted == targets))}
    if len(classes) > TOP_K:
        # How many classes score strictly above the right one; so a tie counts as right, up to rounding.
        above = (scores > scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
        metrics["top5_accuracy"] = float(np.mean(above < TOP_K))
    metrics |= _averages(targets, predicted)
    present = np.isin(np.arange(len(classes)), targets)
    absent = {}
    if not present.all():
        absent["auc"] = _no_example(classes, ~present)
    elif len(classes) == 2:
        metrics["auc"] = float(sklearn.metrics.roc_auc_score(targets, scores[:, 1]))
    else:
        # Per class, because scikit-learn's own multi-class form wants rows that sum to 1 more exactly
        # than float32 probabilities do. The value is the same.
        one_hot = targets[:, None] == np.arange(len(classes))
        metrics["auc"] = float(sklearn.metrics.roc_auc_score(one_hot, scores, average="macro"))
    metrics["per_class"] = _per_class(targets, predicted, classes, list(range(len(classes))))
    return metrics, absent


def _multilabel(targets: np.ndarray, scores: np.ndarray, classes: list[str]) -> Metrics:
    targets = targets.astype(np.int64).reshape(scores.shape)
    predicted = (scores > THRESHOLD).astype(np.int64)
    metrics: dict[str, Any] = {"accuracy": float(np.mean((predicted == targets).all(axis=1)))}
    metrics |= _averages(targets, predicted)
    some = np.asarray(targets.any(axis=0))
    every = np.asarray(targets.all(axis=0))
    absent = {}
    if not some.all():
        absent["auc"] = _no_example(classes, ~some)
    elif every.any():
        absent["auc"] = f"every example of this split has {_names(classes, every)}"
    else:
        metrics["auc"] = float(sklearn.metrics.roc_auc_score(targets, scores, average="macro"))
    metrics["per_class"] = _per_class(targets, predicted, classes, None)
    return metrics, absent


def _regress(targets: np.ndarray, scores: np.ndarray, classes: list[str]) -> Metrics:
    targets = targets.astype(np.float64).reshape(len(targets), -1)
    scores = scores.reshape(targets.shape)
    columns = [_one_value(targets[:, k], scores[:, k]) for k in range(targets.shape[1])]
    metrics: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name in ("mae", "rmse", "r2", "spearman"):
        reasons = [reasons[name] for _, reasons in columns if name in reasons]
        if reasons:
            absent[name] = reasons[0]
        else:
            metrics[name] = float(np.mean([values[name] for values, _ in columns]))
    if len(columns) > 1:
        metrics["per_value"] = {name: values for name, (values, _) in zip(classes, columns, strict=True)}
    return metrics, absent


def _one_value(targets: np.ndarray, predicted: np.ndarray) -> tuple[dict[str, float], dict[str, str]]:
    metrics = {
        "mae": float(np.abs(predicted - targets).mean()),
        "rmse": float(np.sqrt(np.square(predicted - targets).mean())),
    }
    absent = {}
    if np.ptp(targets) == 0:
        absent = dict.fromkeys(("r2", "spearman"), "all targets of this split are the same")
    else:
        metrics["r2"] = float(sklearn.metrics.r2_score(targets, predicted))
        if np.ptp(predicted) == 0:
            absent["spearman"] = "all predictions are the same"
        else:
            metrics["spearman"] = float(scipy.stats.spearmanr(targets, predicted).statistic)
    return metrics, absent


def _averages(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        targets, predicted, average="macro", zero_division=0
    )
    micro = sklearn.metrics.f1_score(targets, predicted, average="micro", zero_division=0)
    return {
        "precision_macro": float(precision),
        "recall_macro": float(recall),
        "f1_macro": float(f1),
        "f1_micro": float(micro),
    }


def _per_class(
    targets: np.ndarray, predicted: np.ndarray, classes: list[str], labels: list[int] | None
) -> dict[str, dict[str, float]]:
    columns = sklearn.metrics.precision_recall_fscore_support(
        targets, predicted, labels=labels, average=None, zero_division=0
    )
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(classes, *columns, strict=True)
    }


def _no_example(classes: list[str], missing: np.ndarray) -> str:
    return f"this split has no example of {_names(classes, missing)}"


def _names(classes: list[str], chosen: np.ndarray) -> str:
    names = [repr(classes[k]) for k in np.flatnonzero(chosen)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
