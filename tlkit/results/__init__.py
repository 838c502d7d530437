"""The run folder: what one run leaves behind, written so that it is never half there."""

from tlkit.results.folder import RunFolder
from tlkit.results.listing import MAIN_METRIC, RunRow, list_runs, load_result
from tlkit.results.record import Result, StageRecord, environment
from tlkit.results.saves import Saves, is_plain
from tlkit.results.writing import write_csv, write_json, write_npz, write_text, writing, writing_folder

__all__ = [
    "MAIN_METRIC",
    "Result",
    "RunFolder",
    "RunRow",
    "Saves",
    "StageRecord",
    "environment",
    "is_plain",
    "list_runs",
    "load_result",
    "write_csv",
    "write_json",
    "write_npz",
    "write_text",
    "writing",
    "writing_folder",
]
