"""Writing files and folders whole or not at all: to a temporary name beside, then renamed."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import StorageError
from tlkit.places import require_local

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.(partial|old)(\..*)?")  # what `_beside` makes


@contextmanager
def writing(path: str | Path, size: int = 0) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, what was written there becomes `path`.

    The temporary name keeps the suffixes, because some writers choose their format by them. Missing parent
    folders are made. `size` is how many bytes there must be room for before the block begins: HDF5 takes the
    process down when the disk is full.

    Raises:
        StorageError: It cannot be written (disk full, no permission …). What was at `path` is untouched.
        ConfigError: It is an address of an object store.
    """
    path = Path(path)
    require_local(path, "What tlkit writes")
    temporary = _beside(path, "partial", "".join(path.suffixes[-2:]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if size and shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def writing_folder(
    path: str | Path, overwrite: bool = False, replaceable: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block ends well, it becomes `path`.

    Args:
        path: The folder to make. It may exist when it is empty.
        overwrite: Let it replace a folder that is not empty. The old one is removed after the new one is in
            its place, and comes back if that fails.
        replaceable: Whether a folder may be overwritten: protects those that hold something else. None: any.

    Raises:
        StorageError: It is not empty, not replaceable, or cannot be written. What was there is untouched.
        ConfigError: It is an address of an object store.
    """
    require_local(path, "What tlkit writes")
    path = Path(path).resolve()
    temporary = _beside(path, "partial")
    try:
        check_free(path, overwrite, replaceable)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        _swap_in(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where there is none yet. Raises StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def write_text(path: str | Path, text: str) -> None:
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write strict JSON: NumPy scalars become numbers, NaN and infinities become null."""
    write_text(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table without its index."""
    with writing(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of numbers or text, compressed. They load without `allow_pickle`."""
    import numpy as np  # here, so that listing runs does not wait for it

    with writing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def check_free(path: Path, overwrite: bool, replaceable: Callable[[Path], bool] | None = None) -> None:
    """Raise StorageError where a folder cannot be made at `path` without losing something."""
    if not path.exists():
        return
    if not path.is_dir():
        raise StorageError(f"{path} is a file, not a folder.")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise StorageError(f"{path} is not empty. Choose another folder, or pass --overwrite to replace it.")
    if replaceable is not None and not replaceable(path):
        raise StorageError(f"{path} holds something that tlkit did not write; it is not overwritten.")


def remove_partial(folder: Path) -> None:
    """Remove, in `folder` and below it, what processes were writing when they died. Nobody may be writing."""
    for path in list(folder.rglob(".*")):
        if _TEMPORARY.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif _TEMPORARY.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def storage_error(path: Path, error: OSError) -> StorageError:
    reason = error.strerror or " ".join(str(error).split())
    return StorageError(f"Cannot write {path}: {reason}.")


def _swap_in(new: Path, path: Path) -> None:
    if not path.exists():
        new.replace(path)
        return
    old = _beside(path, "old")
    path.replace(old)
    try:
        new.replace(path)
    except OSError:
        old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, kind: str, suffix: str = "") -> Path:
    """A hidden name in the same folder, hence on the same file system, that nothing else uses."""
    return path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.{kind}{suffix}")


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Make the rename itself durable. Not every system can open a folder; the file is whole anyway."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
