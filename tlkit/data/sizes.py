"""How large the pictures of a source are, from a few of them."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
from PIL import Image

from tlkit.config import DataConfig
from tlkit.data.sources import read_rows

_LOOKED_AT = 32


def longest_side(spec: DataConfig, source: object | None = None) -> int | None:
    """The longest side, in pixels, among up to 32 pictures of the source; None where none can be read.

    Raises what reading the source raises: DataError where it is missing or wrong.
    """
    rows = read_rows(spec.source if source is None else source, spec)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _LOOKED_AT)).astype(int))
    sides: list[int] = []
    for row in chosen:
        if rows.pictures is not None:
            sides += np.shape(rows.pictures[row])[:2]
            continue
        # Whatever is wrong with a picture is reported when it is decoded.
        with suppress(OSError, Image.DecompressionBombError):
            sides += Image.open(io.BytesIO(rows.read(row))).size
    return max(sides, default=None)
