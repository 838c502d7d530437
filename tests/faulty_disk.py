"""Disks that fail when they are told to: writes that are refused, folders that nobody may write to."""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_DAC_OVERRIDE = 1 << 1  # what lets root write wherever it wants
_CAPABILITY_VERSION_3 = 0x20080522


class FaultyDisk:
    """Counts what Python writes below a folder, and refuses it from a given write on.

    A write is a file that is opened to be written, or that takes a name, or a folder that is made. One that
    fails takes half of what is written to it first.

    Attributes:
        folder: What else is written is let through.
        writes: The path of every write so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.writes: list[str] = []
        self._first: int | None = None
        self._lasts = True
        self._code = errno.ENOSPC

    def fail(self, at: int, lasts: bool = True, code: int = errno.ENOSPC) -> None:
        """Count anew, and fail at the write with this number; where it `lasts`, at all after it, too."""
        self.writes, self._first, self._lasts, self._code = [], at, lasts, code

    def mend(self) -> None:
        self._first = None

    def find(self, pattern: str) -> int:
        """The number of the first write of a file with such a name."""
        return next(n for n, path in enumerate(self.writes, 1) if re.search(pattern, Path(path).name))

    @contextmanager
    def watched(self) -> Iterator[FaultyDisk]:
        real = {name: getattr(os, name) for name in ("open", "mkdir", "replace", "rename")}
        real_open = io.open

        def open_file(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            writes = set("wax+") & set(mode) and self._counts(file)
            if not writes or not self._fails():
                return real_open(file, mode, *args, **options)
            if "r" in mode:
                raise self._error(file)
            return _FullFile(real_open(file, mode, *args, **options), self._error(file))

        def open_low(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR) and self._counts(path) and self._fails():
                raise self._error(path)
            return int(real["open"](path, flags, *args, **options))

        def mkdir(path: Any, *args: Any, **options: Any) -> None:
            if not os.path.isdir(path) and self._counts(path) and self._fails():  # noqa: PTH112
                raise self._error(path)
            real["mkdir"](path, *args, **options)

        def move(name: str) -> Any:
            def call(source: Any, target: Any, **options: Any) -> None:
                if self._counts(target) and self._fails():
                    raise self._error(target)
                real[name](source, target, **options)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builtins, "open", open_file)
            patch.setattr(io, "open", open_file)
            patch.setattr(os, "open", open_low)
            patch.setattr(os, "mkdir", mkdir)
            patch.setattr(os, "replace", move("replace"))
            patch.setattr(os, "rename", move("rename"))
            yield self

    def _counts(self, path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        name = str(os.fspath(path))
        if not name.startswith(self.folder):
            return False
        self.writes.append(name)
        return True

    def _fails(self) -> bool:
        number = len(self.writes)
        return self._first is not None and (number == self._first or (self._lasts and number > self._first))

    def _error(self, path: Any) -> OSError:
        return OSError(self._code, os.strerror(self._code), str(path))


class _FullFile:
    """An open file that takes half of what is written to it."""

    def __init__(self, file: Any, error: OSError) -> None:
        self._file = file
        self._error = error

    def write(self, data: Any) -> int:
        self._file.write(data[: len(data) // 2])
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _FullFile:
        return self

    def __exit__(self, *problem: object) -> None:
        self._file.close()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """While the block runs, this thread can write to no folder in `folder`, whoever it runs as."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    modes = [path.stat().st_mode for path in folders]
    for path in folders:
        path.chmod(0o555)
    try:
        with _as_anybody():
            yield
    finally:
        for path, mode in zip(folders, modes, strict=True):
            with contextlib.suppress(FileNotFoundError):
                path.chmod(mode)


@contextmanager
def _as_anybody() -> Iterator[None]:
    """Without what lets root write to everything; Linux keeps that for each thread."""
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("root may write everywhere here")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, in two halves
    if libc.capget(header, data):
        pytest.skip("root may write everywhere here, and cannot be kept from it")
    before = data[0]
    data[0] = before & ~_DAC_OVERRIDE
    if libc.capset(header, data):
        pytest.skip("root may write everywhere here, and cannot be kept from it")
    try:
        yield
    finally:
        data[0] = before
        libc.capset(header, data)
