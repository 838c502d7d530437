"""Read a PyTorch state dict (`.pth`) with numpy alone, and without running what a pickle asks for.

Both formats are read: the zip archive (since PyTorch 1.6) and the older plain pickle. Pickles are programs;
this unpickler resolves only the names that a dictionary of tensors needs, and refuses every other.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import FetchError

Array = NDArray[Any]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_state_dict(path: str | Path) -> dict[str, Array]:
    """The tensors of a `.pth` file by name, each with its own memory.

    A file that holds `{"state_dict": {...}}` gives the inner dictionary; entries that are not tensors are
    left out. Raises FetchError when the file is truncated, is no state dict, or asks for a name that a
    state dict does not need (the message names it).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file, path.stat().st_size)
        if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
            content = content["state_dict"]
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dictionary of tensors")
        return {str(key): value.to_array() for key, value in content.items() if isinstance(value, _Tensor)}
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror or error}") from error
    except _BROKEN as error:
        raise FetchError(f"{path} is not a PyTorch state dict that tlkit reads: {error}") from error


# What a damaged or hostile pickle can raise while it is interpreted.
_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, ValueError, TypeError, KeyError, IndexError,
    AttributeError, EOFError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip


@dataclass
class _Storage:
    """A flat run of numbers that tensors are views of. The older format sends the bytes after the pickle."""

    dtype: np.dtype[Any]
    length: int
    data: Array | None = None


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage: offset and strides are counted in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to_array(self) -> Array:
        flat = self.storage.data
        if flat is None or len(self.shape) != len(self.strides):
            raise pickle.UnpicklingError("a tensor has no data")
        if min((self.offset, *self.shape, *self.strides)) < 0 or math.prod(self.shape) > flat.size:
            raise pickle.UnpicklingError("a tensor is larger than its storage")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= flat.size:
            raise pickle.UnpicklingError("a tensor reaches outside its storage")
        steps = [step * flat.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps).copy()


class _Unpickler(pickle.Unpickler):
    """Interprets a pickle that may hold nothing but containers, numbers, strings and tensors."""

    def __init__(self, file: IO[bytes], read_storage: Callable[[str, int], bytes] | None = None) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}
        self._read_storage = read_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        # A pickle may set attributes on what it is given, so it gets new functions and plain strings.
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda *arguments: _rebuild_tensor(*arguments)
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_unused: tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which was refused")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, length = pid[:5]
        if kind != "storage" or dtype not in _DTYPES.values() or (len(pid) > 5 and pid[5] is not None):
            raise pickle.UnpicklingError("it refers to something that is not a storage of numbers")
        if key not in self.storages:
            storage = self.storages[key] = _Storage(np.dtype(dtype), int(length))
            if self._read_storage:
                content = self._read_storage(key, storage.length * storage.dtype.itemsize)
                storage.data = np.frombuffer(content, dtype, storage.length)
        return self.storages[key]


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_unused: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor has no storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _read_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("the archive does not hold exactly one data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        total = sum(info.compress_size for info in archive.infolist())

        def read_storage(key: str, size: int) -> bytes:
            info = archive.getinfo(f"{root}data/{key}")
            # PyTorch stores without compression: a member that unpacks to more than the file holds is a bomb.
            if info.file_size != size or size > total:
                raise pickle.UnpicklingError(f"storage {key!r} has {info.file_size} bytes instead of {size}")
            return archive.read(info)

        if archive.getinfo(pickles[0]).file_size > total:
            raise pickle.UnpicklingError("data.pkl is larger than the archive")
        return _Unpickler(io.BytesIO(archive.read(pickles[0])), read_storage).load()


def _read_legacy(file: IO[bytes], file_size: int) -> Any:
    file.seek(0)
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise pickle.UnpicklingError("it does not begin like one")
    _Unpickler(file).load()  # facts of the machine that wrote it
    unpickler = _Unpickler(file)
    content = unpickler.load()
    for key in _Unpickler(file).load():  # the storages follow in this order
        storage = unpickler.storages[key]
        (length,) = struct.unpack("<q", file.read(8))
        size = length * storage.dtype.itemsize
        if length != storage.length or not 0 <= size <= file_size:
            raise pickle.UnpicklingError(f"storage {key!r} has {length} elements instead of {storage.length}")
        storage.data = np.frombuffer(file.read(size), storage.dtype, length)
    return content
