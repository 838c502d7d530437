"""Tables of features, in memory or in memory-mapped files, to which rows are added and never changed."""

from __future__ import annotations

import json
import mmap
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from tlkit.errors import StorageError
from tlkit.features.columns import Column, ColumnSpec, make_column
from tlkit.features.users import register, remove_unused, unregister
from tlkit.progress import make_console
from tlkit.results.writing import write_json, write_npz

VERSION = 1
ID_BYTES = 16
PATIENCE = 2  # seconds, after which it is said what is waited for
SEGMENT_BYTES = 64 * 2**20
ALIGNMENT = 64  # TensorFlow ends the process over a tensor that begins anywhere else
ABOUT, INDEX, LOCK = "about.json", "index.npz", ".lock"
Lengths = dict[str, npt.NDArray[np.int32]]


class FeatureTable(ABC):
    """Rows of features by their ids, which are bytes of length 16."""

    def __init__(self, specs: Sequence[ColumnSpec]) -> None:
        self.specs = tuple(specs)
        self._forget()

    def _forget(self) -> None:
        self._row_of: dict[bytes, int] = {}
        axes = dict.fromkeys(spec.axis for spec in self.specs if spec.axis)
        self._lengths: dict[str, list[npt.NDArray[np.int32]]] = {axis: [] for axis in axes}

    def __len__(self) -> int:
        return len(self._row_of)

    def rows(self, ids: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """The row of each id; −1 where there is none."""
        return np.array([self._row_of.get(each, -1) for each in ids], dtype=np.int64)

    def add(self, ids: Sequence[bytes], arrays: Sequence[npt.NDArray[Any]], lengths: Lengths) -> None:
        """Add rows. An array for each column: (rows, *shape), or its elements, one row after the other."""
        self._write([np.ascontiguousarray(array) for array in arrays], len(ids))
        for each in ids:
            self._row_of[each] = len(self._row_of)
        for axis, sizes in self._lengths.items():
            sizes.append(lengths[axis].astype(np.int32))
        self._added()

    def columns(self) -> list[Column]:
        """Every column, with the rows that there are now."""
        lengths = {
            axis: np.concatenate([*sizes, np.zeros(0, np.int32)]) for axis, sizes in self._lengths.items()
        }
        return [make_column(spec, self._values(place), lengths) for place, spec in enumerate(self.specs)]

    @contextmanager
    def filling(self) -> Iterator[None]:
        """While rows are added: one process at a time. What was added is kept, also after an error; a disk
        that fails may lose the last of it."""
        yield

    @abstractmethod
    def leave(self) -> None:
        """Use it no more: others may remove it, and an empty one is gone."""

    @abstractmethod
    def release(self) -> None:
        """Give back memory that holds what the disk has, too."""

    @abstractmethod
    def _added(self) -> None:
        """After values, ids and lengths of some rows."""

    @abstractmethod
    def _write(self, arrays: list[npt.NDArray[Any]], count: int) -> None: ...

    @abstractmethod
    def _values(self, place: int) -> npt.NDArray[Any]: ...


class MemoryTable(FeatureTable):
    """A table that is gone with the process."""

    def __init__(self, specs: Sequence[ColumnSpec]) -> None:
        super().__init__(specs)
        self._arrays = [_aligned_empty(0, spec.dtype) for spec in self.specs]
        self._used = [0 for _ in self.specs]

    def reserve(self, counts: Sequence[int]) -> None:
        """Have room for so many values of each column: while it lasts, what is there is not copied to make
        more. Memory is taken as it is filled."""
        for place, (count, array) in enumerate(zip(counts, self._arrays, strict=True)):
            if count > array.size:
                used, larger = self._used[place], _aligned_empty(count, array.dtype)
                larger[:used] = array[:used]
                self._arrays[place] = larger

    def leave(self) -> None:
        """Nobody else has it."""

    def release(self) -> None:
        """There is no other copy."""

    def _added(self) -> None:
        """They are where they stay."""

    def _write(self, arrays: list[npt.NDArray[Any]], count: int) -> None:
        del count
        ends = [used + array.size for used, array in zip(self._used, arrays, strict=True)]
        rooms = [array.size for array in self._arrays]
        self.reserve([2 * end if end > room else 0 for end, room in zip(ends, rooms, strict=True)])
        for own, begin, end, array in zip(self._arrays, self._used, ends, arrays, strict=True):
            own[begin:end] = array.reshape(-1)
        self._used = ends

    def _values(self, place: int) -> npt.NDArray[Any]:
        return self._arrays[place][: self._used[place]]


class DiskTable(FeatureTable):
    """A table in a folder: a file for each column, and an index that says which bytes of them are good.

    Bytes are appended and then entered into the index with their checksum, so that a file may be longer than
    the index says, and a process that dies loses only what it had not entered. What does not match the index
    is thrown away, whole. A folder that is in use has a locked file for each user and is not evicted.
    """

    def __init__(self, folder: Path, specs: Sequence[ColumnSpec], about: dict[str, Any]) -> None:
        super().__init__(specs)
        self.folder = folder
        self._about = {"version": VERSION, **about, "columns": [asdict(spec) for spec in specs]}
        self._maps: list[np.memmap[Any, Any]] = []
        with _storage_errors(folder):
            self._user = register(folder)
            try:
                with self._locked():
                    self._open()
            except BaseException:
                self.leave()
                raise

    @contextmanager
    def filling(self) -> Iterator[None]:
        with _storage_errors(self.folder), self._locked():
            try:
                self._read_index()  # another process may have added rows
            except Exception:
                self._begin()
            self._cut()
            self._handles = [path.open("ab") for path in self._files]
            try:
                yield
            except (OSError, StorageError):
                raise  # what failed is not asked again
            except BaseException:
                with suppress(OSError, StorageError):
                    self._enter()
                raise
            else:
                self._enter()
            finally:
                for handle in self._handles:
                    with suppress(OSError):
                        handle.close()
                self._read_index()  # what could not be entered is not there
                with suppress(OSError):
                    self._cut()

    def release(self) -> None:
        for each in self._maps:
            with suppress(AttributeError, ValueError, OSError):  # not everywhere, and not needed
                each._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def leave(self) -> None:
        unregister(self._user)
        if not (self.folder / INDEX).exists():
            remove_unused(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = filelock.FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=PATIENCE)
        except filelock.Timeout:
            make_console().print("Another process stores the same features: waiting for it.", highlight=False)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _open(self) -> None:
        try:
            about = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
            if (
                about.get("columns") == json.loads(json.dumps(self._about["columns"]))
                and about["version"] == VERSION
            ):
                self._read_index()
                self._check()
                os.utime(self.folder / ABOUT)
                return
        except Exception:  # a damaged file does all kinds of things to what reads it
            pass
        self._begin()

    def _begin(self) -> None:
        """Empty the table."""
        (self.folder / INDEX).unlink(missing_ok=True)
        for path in self._files:
            path.unlink(missing_ok=True)  # not truncated: another process may have it mapped
            path.touch()
        write_json(self.folder / ABOUT, self._about)
        self._read_index()

    @property
    def _files(self) -> list[Path]:
        return [self.folder / f"{place}-{spec.name}.bin" for place, spec in enumerate(self.specs)]

    def _cut(self) -> None:
        """Take off the files what the index does not have."""
        for path, size in zip(self._files, self._ends[-1][1:], strict=True):
            os.truncate(path, size)

    def _read_index(self) -> None:
        self._forget()
        if not (self.folder / INDEX).exists():
            ids = np.zeros((0, ID_BYTES), np.uint8)
            self._ends = np.zeros((1, 1 + len(self.specs)), np.int64)
            self._sums = np.zeros((0, len(self.specs)), np.uint32)
        else:
            # Opened here, because numpy leaves open what it cannot read.
            with (self.folder / INDEX).open("rb") as file, np.load(file, allow_pickle=False) as index:
                ids, self._ends, self._sums = index["ids"], index["ends"], index["sums"]
                for axis, sizes in self._lengths.items():
                    sizes.append(index[f"lengths_{axis}"])
        self._row_of = {row.tobytes(): place for place, row in enumerate(ids)}
        self._written = self._ends[-1].copy(), np.zeros(len(self.specs), np.uint32)

    def _check(self) -> None:
        """Raise ValueError where a file does not hold what the index says."""
        counts = {axis: sum(int(sizes.sum()) for sizes in each) for axis, each in self._lengths.items()}
        for spec, end in zip(self.specs, self._ends[-1][1:], strict=True):
            if end != spec.bytes_each * (counts[spec.axis] if spec.axis else len(self)):
                raise ValueError(f"{self.folder / INDEX} does not belong to its files")
        for place, path in enumerate(self._files):
            with path.open("rb") as file:
                for number, (begin, end) in enumerate(zip(self._ends[:-1], self._ends[1:], strict=True)):
                    data = file.read(int(end[place + 1] - begin[place + 1]))
                    if (
                        len(data) < end[place + 1] - begin[place + 1]
                        or zlib.crc32(data) != self._sums[number, place]
                    ):
                        raise ValueError(f"{path} is damaged")

    def _write(self, arrays: list[npt.NDArray[Any]], count: int) -> None:
        ends, sums = (part.copy() for part in self._written)
        for place, (handle, array) in enumerate(zip(self._handles, arrays, strict=True)):
            data = array.tobytes()
            handle.write(data)
            sums[place] = zlib.crc32(data, int(sums[place]))
            ends[place + 1] += len(data)
        ends[0] += count
        self._pending = ends, sums

    def _added(self) -> None:
        self._written = self._pending
        if (self._written[0] - self._ends[-1])[1:].sum() >= SEGMENT_BYTES:
            self._enter()

    def _enter(self) -> None:
        """Make the rows that were added whole part of the table; the last may not be."""
        ends, sums = self._written
        count = int(ends[0])
        if count == self._ends[-1][0]:
            return
        for handle in self._handles:
            handle.flush()
            os.fsync(handle.fileno())
        self._ends = np.concatenate([self._ends, ends[None]])
        self._sums = np.concatenate([self._sums, sums[None]])
        self._written = ends.copy(), np.zeros(len(self.specs), np.uint32)
        ids = np.frombuffer(b"".join(self._row_of), np.uint8).reshape(-1, ID_BYTES)[:count]
        lengths = {f"lengths_{axis}": np.concatenate(sizes)[:count] for axis, sizes in self._lengths.items()}
        write_npz(self.folder / INDEX, {"ids": ids, "ends": self._ends, "sums": self._sums, **lengths})

    def _values(self, place: int) -> npt.NDArray[Any]:
        spec = self.specs[place]
        count = int(self._ends[-1][place + 1]) // np.dtype(spec.dtype).itemsize
        if not count:
            return np.zeros(0, spec.dtype)
        # Copy on write: TensorFlow takes arrays as they are only where they may be written to.
        with _storage_errors(self.folder):
            values = np.memmap(self._files[place], dtype=spec.dtype, mode="c", shape=(count,))
        self._maps.append(values)
        return values


def _aligned_empty(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Uninitialised values, which TensorFlow can take as they are."""
    bytes_each = np.dtype(dtype).itemsize
    memory = np.empty(size * bytes_each + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size * bytes_each].view(dtype)


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The feature cache {folder} cannot be used: {error.strerror or error}. "
            "Free some space, set TLKIT_HOME to another folder, or use cache.mode=memory or off"
        ) from error
