"""Examples: where they come from, whether they can be used, and how they are fed."""

from tlkit.data.checking import CheckReport, check
from tlkit.data.loading import load
from tlkit.data.manifest import SPLITS, Dataset, Examples, Manifest
from tlkit.data.pipeline import count_steps, make_pipeline, order_of_epoch
from tlkit.data.sample import resolve_sample_split
from tlkit.data.sizes import longest_side

__all__ = [
    "SPLITS",
    "CheckReport",
    "Dataset",
    "Examples",
    "Manifest",
    "check",
    "count_steps",
    "load",
    "longest_side",
    "make_pipeline",
    "order_of_epoch",
    "resolve_sample_split",
]
