"""Export: a SavedModel with the preprocessing inside, checked in a fresh process before it is handed over."""

from tlkit.exporting.answers import name_tags
from tlkit.exporting.checking import CheckReport
from tlkit.exporting.saved_model import ExportReport, export_saved_model

__all__ = ["CheckReport", "ExportReport", "export_saved_model", "name_tags"]
