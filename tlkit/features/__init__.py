"""Stored activations at the boundary between frozen and trained layers: one table for each boundary."""

from tlkit.features.columns import Column, ColumnSpec
from tlkit.features.folder import StoredTable, clear, features_folder, find_room, make_room, stored_tables
from tlkit.features.table import ALIGNMENT, DiskTable, FeatureTable, MemoryTable

__all__ = [
    "ALIGNMENT",
    "Column",
    "ColumnSpec",
    "DiskTable",
    "FeatureTable",
    "MemoryTable",
    "StoredTable",
    "clear",
    "features_folder",
    "find_room",
    "make_room",
    "stored_tables",
]
