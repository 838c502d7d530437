"""Data on an object store: copied into the cache folder once, whole or not at all, and read from there."""

from __future__ import annotations

import functools
import glob
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from tlkit.data.copying import copy_files, reading, reason_of
from tlkit.data.record_files import pattern_in
from tlkit.data.table import TABLE_ENDINGS, read_any_table
from tlkit.errors import ConfigError, DataError, FetchError, StorageError, TlkitError
from tlkit.zoo.cache import forbidden, offline
from tlkit.zoo.datasets import datasets_folder, find_dataset, keep_dataset

SCHEMES = ("gs", "s3", "memory")  # the last is fsspec's own, for tests
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
    scheme = address.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(
            f"data.source: {address!r} is no place that tlkit reads data from. Allowed: paths, gs://…, s3://…"
        )
    if offline():
        return _kept(address)
    store, root = _store(address, scheme)
    with reading(address):
        store.invalidate_cache()
        base, last, files = _list(store, root)
    if not files:
        raise DataError(f"{address}: there is no such file or folder, or nothing is in it.")
    versions = {name: [str(info[key]) for key in _VERSIONS if key in info] for name, info in files.items()}
    is_table = list(files) == [last] and last.lower().endswith(TABLE_ENDINGS)

    def make(folder: Path) -> None:
        sizes = {name: info.get("size") for name, info in files.items()}
        total, free = sum(filter(None, sizes.values())), shutil.disk_usage(folder).free
        if total > free:
            raise StorageError(f"{address} has {total:,} bytes, and {free:,} are free at {datasets_folder()}")
        copy_files(store, base, sizes, folder, address)
        if is_table:
            names = _pictures_of(folder / last, path_column, address)
            copy_files(store, base, dict.fromkeys(names), folder, address)

    identity = ["remote", address, path_column if is_table else "", versions]
    about = {"source": address, "last": last}
    return _meant(keep_dataset(identity, PurePosixPath(base).name or "data", about, make), last)


def _store(address: str, scheme: str) -> tuple[Any, str]:
    """The file system, and the path in it."""
    try:
        import fsspec

        store, root = fsspec.core.url_to_fs(address)
    except ImportError:
        raise ConfigError(f"{scheme}:// needs the extra remote: pip install 'tlkit[remote]'") from None
    except Exception as error:  # credentials are looked for here, by libraries with errors of their own
        raise FetchError(f"{address} cannot be read: {reason_of(error)}") from None
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


def _kept(address: str) -> Path:
    """The last copy, while nothing may be downloaded."""
    copy = find_dataset(address)
    if copy is None:
        raise forbidden(address, datasets_folder() / "none")
    return _meant(copy.data, str(copy.about["last"]))


def _meant(folder: Path, last: str) -> Path:
    return pattern_in(folder, last) if glob.has_magic(last) else folder / last
