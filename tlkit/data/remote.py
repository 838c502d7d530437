"""Data on an object store: copied into the cache folder once, whole or not at all, and read from there."""

from __future__ import annotations

import functools
import glob
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from tlkit.data.table import TABLE_ENDINGS, read_any_table
from tlkit.errors import ConfigError, DataError, FetchError, StorageError, TlkitError
from tlkit.progress import byte_bar
from tlkit.zoo.cache import forbidden, offline
from tlkit.zoo.datasets import datasets_folder, hold, keep_dataset, stored_datasets

SCHEMES = ("gs", "s3", "memory")  # the last is fsspec's own, for tests
_AT_ONCE = 16  # small files wait for answers, not for the line
_CHUNK = 1 << 20
# What stores say of a file, and say otherwise when its content changes; each has some of them.
_VERSIONS = ("size", "etag", "ETag", "generation", "md5Hash", "mtime", "LastModified", "updated", "created")


@functools.lru_cache(maxsize=16)
def copy_here(address: str, path_column: str) -> Path:
    """Where on this machine that is which is at `address`: a file, a folder, or a pattern for several files.

    The files are copied when they are asked for first, and again when the store says that one of them has
    changed. Of a table with a column `path_column` the pictures that it names come along, from its own folder
    or below; they are taken to change with it.

    Raises ConfigError where the address is of no kind that is read, or its library is not there; DataError
    where nothing is there; FetchError where it cannot be read; StorageError.
    """
    store, root = _store(address)
    if offline():
        return _kept(address)
    with _reading(address):
        store.invalidate_cache()
        base, last, files = _list(store, root)
    if not files:
        raise DataError(f"{address}: there is no such file or folder, or nothing is in it.")
    versions = {name: [str(info[key]) for key in _VERSIONS if key in info] for name, info in files.items()}
    is_table = list(files) == [last] and last.lower().endswith(TABLE_ENDINGS)

    def make(folder: Path) -> None:
        sizes = {name: int(info.get("size") or 0) for name, info in files.items()}
        _copy_all(store, base, sizes, folder, address)
        if is_table:
            names = _pictures_of(folder / last, path_column, address)
            _copy_all(store, base, dict.fromkeys(names), folder, address)

    identity = ["remote", address, path_column if is_table else "", versions]
    about = {"source": address, "last": last}
    return keep_dataset(identity, PurePosixPath(base).name or "data", about, make) / last


def _store(address: str) -> tuple[Any, str]:
    """The file system, and the path in it."""
    scheme = address.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(
            f"data.source: {address!r} is no place that tlkit reads data from. Allowed: paths, gs://…, s3://…"
        )
    try:
        import fsspec

        store, root = fsspec.core.url_to_fs(address)
    except ImportError:
        raise ConfigError(f"{scheme}:// needs the extra remote: pip install 'tlkit[remote]'") from None
    except Exception as error:  # credentials are looked for here, by libraries with errors of their own
        raise FetchError(f"{address} cannot be read: {_reason(error)}") from None
    return store, root.rstrip("/")


def _list(store: Any, root: str) -> tuple[str, str, dict[str, dict[str, Any]]]:
    """The folder that is copied; what below it is meant: a file, a pattern, or "" for all; and of each file
    its name below the folder, and what the store knows of it."""
    path = PurePosixPath(root)
    if glob.has_magic(root):
        base = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
        found = store.glob(root, detail=True)
    elif store.isfile(root):
        return str(path.parent), path.name, {_below(path.name, root): store.info(root)}
    else:
        base, found = path, store.find(root, detail=True)
    files = {}
    for place, info in sorted(found.items()):
        if info.get("type") != "file" or place.endswith("/"):  # what stores keep in place of folders
            continue
        name = _below(place.removeprefix(f"{str(base).rstrip('/')}/"), place)
        if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts):
            files[name] = info
    return str(base), str(path.relative_to(base)) if base != path else "", files


def _below(name: str, where: str) -> str:
    """`name`, which stays in the folder that it is copied to. Raises DataError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise DataError(f"{where}: the name {name!r} leads out of its folder, so it is not copied.")
    return str(path)


def _pictures_of(table: Path, column: str, where: str) -> list[str]:
    """The pictures that a table names, beside it or below."""
    try:
        frame = read_any_table(table)
    except TlkitError:
        return []  # whoever reads it says what is wrong
    if column not in frame:
        return []
    names = [str(name).strip() for name in frame[column] if not pd.isna(name) and str(name).strip()]
    return sorted({_below(name, where) for name in names})


def _copy_all(store: Any, base: str, sizes: Mapping[str, int | None], folder: Path, address: str) -> None:
    """Copy files, by their names below `base`, to `folder`. Sizes are in bytes, None where not known."""
    total, free = sum(filter(None, sizes.values())), shutil.disk_usage(folder).free
    if total > free:
        raise StorageError(f"{address} has {total:,} bytes, and {free:,} are free at {datasets_folder()}")
    with byte_bar(f"Copying {address}", total or None) as show, ThreadPoolExecutor(_AT_ONCE) as pool:
        running = [
            pool.submit(_copy, store, f"{base.rstrip('/')}/{name}", folder / name, size)
            for name, size in sizes.items()
        ]
        done = 0
        try:
            for one in running:
                done += one.result()
                show(done, None)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _copy(store: Any, path: str, to: Path, size: int | None) -> int:
    to.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with _reading(path):
        source = store.open(path, "rb")
    with source, to.open("xb") as target:
        while True:
            with _reading(path):
                chunk = source.read(_CHUNK)
            if not chunk:
                break
            target.write(chunk)
            written += len(chunk)
    if size is not None and written != size:
        raise FetchError(
            f"{path} has changed while it was copied: {written:,} bytes, not {size:,}. Try again"
        )
    return written


def _kept(address: str) -> Path:
    """The last copy, while nothing may be downloaded."""
    for each in reversed(stored_datasets()):
        if each.about.get("source") == address:
            hold(each.path)
            return each.path / str(each.about["name"]) / str(each.about["last"])
    raise forbidden(address, datasets_folder() / "none")


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn what a store raises into FetchErrors. Some of it are OSErrors, as is a disk that is full here."""
    try:
        yield
    except TlkitError:
        raise
    except Exception as error:
        raise FetchError(f"{where} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
