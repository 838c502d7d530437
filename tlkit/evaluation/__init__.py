"""Metrics by objective, the confusion matrix, and the plots of a run."""

from tlkit.evaluation.confusion import confusion_matrix
from tlkit.evaluation.entities import find_entities
from tlkit.evaluation.metrics import THRESHOLD, compute_metrics
from tlkit.evaluation.plots import Plot, plot_confusion_matrix, plot_history, plot_regression
from tlkit.evaluation.similarity import cosines

__all__ = [
    "THRESHOLD",
    "Plot",
    "compute_metrics",
    "confusion_matrix",
    "cosines",
    "find_entities",
    "plot_confusion_matrix",
    "plot_history",
    "plot_regression",
]
