"""Pictures that come as numpy arrays, as the RGB that decoding would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tlkit.errors import DataError


def to_rgb(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """One picture as uint8 RGB (H, W, 3), not resized.

    Accepted: (H, W) and (H, W, 1) grey, (H, W, 3) RGB, (H, W, 4) RGBA, composited on white.
    dtypes: bool (0 or 255), uint8, uint16 (0–65535, rounded to 8 bits), other integers within 0–255, and
    floats. Floats are read as 0–1 where the largest is at most 1, as 0–255 otherwise. A float picture that
    is black but for values up to 1 of 255 is therefore read as 0–1: give such arrays as uint8.

    Raises DataError for another shape, for values outside the range, and for NaN.
    """
    picture = np.asarray(array)
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or 0 in picture.shape:
        raise DataError(
            "A picture must have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
            f"received {np.shape(array)}."
        )
    values = _to_255(picture)
    if picture.shape[2] == 4:
        alpha = values[:, :, 3:] / 255.0
        values = values[:, :, :3] * alpha + 255.0 * (1.0 - alpha)
    return np.broadcast_to(np.rint(values), (*picture.shape[:2], 3)).astype(np.uint8)


def _to_255(picture: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    values = picture.astype(np.float64) if picture.dtype.kind in "buif" else None
    if values is None:
        raise DataError(f"A picture must hold numbers, received dtype {picture.dtype}.")
    if not np.isfinite(values).all():
        raise DataError("A picture holds NaN or infinite values.")
    if picture.dtype.kind == "b":
        return values * 255.0
    if picture.dtype == np.uint16:
        return np.rint(values / 257.0)
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise DataError(
            f"A picture's values must lie in 0–255 (or 0–1 as floats), received {low:g} to {high:g}."
        )
    return values * 255.0 if picture.dtype.kind == "f" and high <= 1 else values
