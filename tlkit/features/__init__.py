"""Stored activations at the boundary between frozen and trained layers: one table for each boundary."""

from tlkit.features.columns import Column, ColumnSpec
from tlkit.features.folder import StoredTable, clear, features_folder, make_room, stored_tables
from tlkit.features.table import DiskTable, FeatureTable, MemoryTable, open_table

__all__ = [
    "Column",
    "ColumnSpec",
    "DiskTable",
    "FeatureTable",
    "MemoryTable",
    "StoredTable",
    "clear",
    "features_folder",
    "make_room",
    "open_table",
    "stored_tables",
]
