"""Progress on standard error: a bar with the time left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def make_progress() -> Progress:
    """A progress bar on standard error; standard output stays free for results."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` behind a progress bar."""
    with make_progress() as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def spinner(description: str) -> Iterator[None]:
    """Something is going on whose length is not known."""
    with Console(stderr=True).status(description):
        yield
