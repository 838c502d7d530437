"""Examples: where they come from, whether they can be used, and how they are fed."""

from tlkit.data.batches import BatchPlan, Share, count_steps, order_of_epoch, plan_batches, rows_of_batch
from tlkit.data.changes import changed_files_told
from tlkit.data.checking import CheckReport, check
from tlkit.data.loading import load
from tlkit.data.manifest import SPLITS, Dataset, Examples, Manifest
from tlkit.data.mixing import Mixing
from tlkit.data.pipeline import InputsOf, make_pipeline
from tlkit.data.sample import resolve_sample_split
from tlkit.data.sizes import longest_side
from tlkit.data.text_sources import modality_of
from tlkit.data.texts import Texts, encode_texts, read_texts

__all__ = [
    "SPLITS",
    "BatchPlan",
    "CheckReport",
    "Dataset",
    "Examples",
    "InputsOf",
    "Manifest",
    "Mixing",
    "Share",
    "Texts",
    "changed_files_told",
    "check",
    "count_steps",
    "encode_texts",
    "load",
    "longest_side",
    "make_pipeline",
    "modality_of",
    "order_of_epoch",
    "plan_batches",
    "read_texts",
    "resolve_sample_split",
    "rows_of_batch",
]
