"""What the manifest says of texts, in a form that every CSV file can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.config import DataConfig
from tlkit.data.labels import Labels
from tlkit.data.rows import Rows, Text
from tlkit.data.text_content import TextContent

_LONGEST = 1000  # characters
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
    pairs = content.samples.ndim == 2
    columns: dict[str, Any] = {
        "id": [f"{digest[:_ID_DIGITS]}-{row}" for row, digest in enumerate(content.hashes)],
        "path": [rows.describe(row) for row in range(len(rows))],
        "text": [_shown(text[0] if isinstance(text, tuple) else text) for text in content.raw],
        **({"text_b": [_shown(text[1]) for text in content.raw]} if pairs else {}),
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


def _shown(text: Text) -> str:
    """A text for the manifest; "" where only its place is."""
    joined = text if isinstance(text, str) else " ".join(text)
    return writable(joined) if len(joined) <= _LONGEST else ""


def writable(text: str) -> str:
    """What a CSV file can hold: a NUL shows as its symbol, half a surrogate pair as a question mark."""
    return text.replace("\0", "\u2400").encode("utf-8", "replace").decode("utf-8")
