"""What an HDF5 file of weights refers to, before it is read.

HDF5 can keep a dataset in another file, take it through a link, put it together from parts of others, or
declare it far larger than it is stored. Weights need none of that.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import h5py

from tlkit.errors import FetchError

_LARGE_BYTES = 100_000_000  # below this a declared size does no harm
_MOST_EXPANSION = 30
_MAX_OBJECTS = 200_000


def check_h5(file: Path | IO[bytes], where: str) -> None:
    """Refuse an HDF5 file that refers to other files or declares more than it holds.

    Raises FetchError, which says what was found; also for what is no HDF5 file.
    """
    try:
        with h5py.File(file, "r") as opened:
            _check_group(opened, where)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:  # what h5py raises when damaged
        raise FetchError(f"{where} is not a whole HDF5 file: {' '.join(str(error).split())[:200]}") from error


def _check_group(root: Any, where: str) -> None:
    left, seen = [root], 0
    visited = {_address(root)}
    while left:
        group = left.pop()
        for name in group:
            seen += 1
            if seen > _MAX_OBJECTS:
                raise FetchError(
                    f"{where} was refused: it holds more than {_MAX_OBJECTS} groups and datasets"
                )
            link = group.get(name, getlink=True)
            path = f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, h5py.ExternalLink):
                raise FetchError(f"{where} was refused: {path!r} is a link to the file {link.filename!r}")
            if isinstance(link, h5py.SoftLink):
                raise FetchError(f"{where} was refused: {path!r} is a link to {link.path!r}")
            item = group[name]
            if isinstance(item, h5py.Dataset):
                _check_dataset(item, f"{where} was refused: {path!r}")
            elif isinstance(item, h5py.Group) and _address(item) not in visited:
                visited.add(_address(item))  # a hard link may lead back up
                left.append(item)


def _address(group: Any) -> int:
    return int(h5py.h5o.get_info(group.id).addr)


def _check_dataset(dataset: Any, refusal: str) -> None:
    if dataset.external:
        raise FetchError(f"{refusal} keeps its numbers in the file {dataset.external[0][0]!r}")
    if dataset.is_virtual:
        raise FetchError(f"{refusal} is put together from other files")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > max(_LARGE_BYTES, _MOST_EXPANSION * stored):
        raise FetchError(f"{refusal} declares {dataset.nbytes:,} bytes and stores {stored:,}")
