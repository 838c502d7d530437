"""What the manifest says of texts, in a form that every CSV file can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.config import DataConfig
from tlkit.data.labels import Labels
from tlkit.data.rows import Rows
from tlkit.data.text_content import TextContent, writable

_ID_DIGITS = 12


def text_table(
    rows: Rows,
    labels: Labels,
    content: TextContent,
    splits: npt.NDArray[np.str_],
    flags: dict[int, str],
    spec: DataConfig,
) -> pd.DataFrame:
    """The table of a `Manifest`: one row for each text, `flags` by row."""
    shown = dict(zip(("text", "text_b"), zip(*content.shown, strict=True), strict=False))
    columns: dict[str, Any] = {
        "id": [f"{digest[:_ID_DIGITS]}-{row}" for row, digest in enumerate(content.hashes)],
        "path": [rows.describe(row) for row in range(len(rows))],
        **shown,
        "label": [writable(text) for text in labels.text],
        "split": splits,
        "hash": content.hashes,
        "flags": [flags.get(row, "") for row in range(len(rows))],
    }
    table = pd.DataFrame(columns)
    for column in (spec.split.group_by, spec.split.stratify_by):
        if column is not None and column in rows.extras and column not in table:
            table[column] = rows.extras[column].to_numpy()
    return table
