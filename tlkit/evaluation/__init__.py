"""Metrics by objective, the confusion matrix, and the plots of a run."""

from tlkit.evaluation.confusion import confusion_matrix
from tlkit.evaluation.entities import find_entities
from tlkit.evaluation.metrics import THRESHOLD, compute_metrics
from tlkit.evaluation.plots import Plot, plot_confusion_matrix, plot_history, plot_regression

__all__ = [
    "THRESHOLD",
    "Plot",
    "compute_metrics",
    "confusion_matrix",
    "find_entities",
    "plot_confusion_matrix",
    "plot_history",
    "plot_regression",
]
