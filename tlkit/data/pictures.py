"""Decoded pictures, kept so that no epoch decodes again: in memory, or in a file that is mapped into it."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlkit.data.tensors import aligned_empty
from tlkit.errors import StorageError

_LEFT_FREE = 2**30  # bytes of the disk that belong to others


@dataclass(frozen=True, eq=False)
class Pictures:
    """Some of the pictures of an array, which all splits share; selecting among them copies none.

    Attributes:
        array: All pictures, uint8 (m, H, W, 3).
        rows: Which of them these are, int64 (n,).
        mapping: The file behind the array, where there is one.
    """

    array: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    mapping: mmap.mmap | None = None

    @classmethod
    def of(cls, array: npt.NDArray[np.uint8], mapping: mmap.mmap | None = None) -> Pictures:
        """All pictures of an array."""
        return cls(array, np.arange(len(array), dtype=np.int64), mapping)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Any) -> Any:
        """One picture, uint8 (H, W, 3), by its number; of several, `Pictures`."""
        rows = self.rows[chosen]
        return self.array[rows] if np.ndim(rows) == 0 else replace(self, rows=rows)

    def __setitem__(self, number: int, picture: npt.NDArray[np.uint8]) -> None:
        self.array[self.rows[number]] = picture

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        chosen = self.array[self.rows]
        return chosen if dtype is None else chosen.astype(dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.array.shape[1:])

    def release(self) -> None:
        """Give back the memory that holds what the file has, too."""
        if self.mapping is not None:
            with suppress(AttributeError, ValueError, OSError):  # not everywhere, and not needed
                self.mapping.madvise(mmap.MADV_DONTNEED)


def pictures_in_memory(shape: Sequence[int]) -> Pictures:
    """Room for pictures, uint8 `shape`."""
    return Pictures.of(aligned_empty(tuple(shape)))


def pictures_on_disk(shape: Sequence[int], folder: Path) -> Pictures:
    """Room for pictures, uint8 `shape`, in a file of `folder` that has no name and is gone with the process.

    Raises StorageError where there is no room, or the folder cannot be written.
    """
    size = int(np.prod(shape, dtype=np.int64))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size + _LEFT_FREE:
            raise StorageError(
                f"{size:,} bytes of decoded pictures are too many for the {free:,} at {folder}"
            )
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # else a disk that fills up later would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            mapping = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise StorageError(f"{folder} cannot hold decoded pictures: {error.strerror or error}") from error
    return Pictures.of(np.frombuffer(mapping, np.uint8).reshape(shape), mapping)
