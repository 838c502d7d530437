"""Many files copied from a store at once, with one bar for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Event, Lock
from typing import Any

from tlkit.errors import FetchError, TlkitError
from tlkit.progress import byte_bar

_AT_ONCE = 16  # small files wait for answers, not for the line
_AHEAD = 2 * _AT_ONCE  # files: there may be millions, which are not queued all at once
_CHUNK = 8 << 20  # bytes of each of them in memory
_SHOWN_EVERY = 0.5  # seconds


def copy_files(store: Any, base: str, sizes: Mapping[str, int | None], folder: Path, address: str) -> None:
    """Copy the files of a store with these names below `base` to `folder`.

    Args:
        store: A file system of fsspec.
        base: A path in it.
        sizes: Name to size, in bytes; None where that is not known.
        folder: Where to; it is there.
        address: What is copied, for people.

    Raises FetchError where one cannot be read or has another size, OSError where one cannot be written. Those
    that are on their way then stop.
    """
    waiting, lock, is_over, copied = iter(sizes.items()), Lock(), Event(), 0

    def count(written: int) -> bool:
        nonlocal copied
        with lock:
            copied += written
        return not is_over.is_set()

    def start(files: int) -> set[Any]:
        return {
            pool.submit(_copy, store, f"{base.rstrip('/')}/{name}", folder / name, size, count)
            for name, size in islice(waiting, files)
        }

    total = sum(filter(None, sizes.values())) or None
    with byte_bar(f"Copying {address}", total) as show, ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            running = start(_AHEAD)
            while running:
                done, running = wait(running, _SHOWN_EVERY, FIRST_COMPLETED)
                for each in done:
                    each.result()
                running |= start(len(done))
                show(copied, None)
        except BaseException:
            is_over.set()
            pool.shutdown(cancel_futures=True)
            raise


def _copy(store: Any, path: str, to: Path, size: int | None, count: Callable[[int], bool]) -> None:
    """Copy one file, for as long as `count`, which is told of every piece, says so."""
    to.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with reading(path):
        source = store.open(path, "rb", block_size=_CHUNK)  # theirs may be larger
    with source, to.open("xb") as target:
        while True:
            with reading(path):
                chunk = source.read(_CHUNK)
            if not chunk:
                break
            target.write(chunk)
            written += len(chunk)
            if not count(len(chunk)):
                return
    if size is not None and written != size:
        raise FetchError(
            f"{path} has changed while it was copied: {written:,} bytes, not {size:,}. Try again"
        )


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what a store raises into FetchErrors. Some of it are OSErrors, as is a disk that is full here."""
    try:
        yield
    except TlkitError:
        raise
    except Exception as error:
        raise FetchError(f"{where} cannot be read: {reason_of(error)}") from None


def reason_of(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
