"""Progress on standard error: a bar with the time left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")


def make_console() -> Console:
    """Standard error; standard output stays free for results.

    There are no bars in a notebook: rich draws those with ipywidgets, and warns where it is missing; and a
    notebook's kernel calls itself a terminal, and keeps every frame that is drawn there.
    """
    in_notebook = Console().is_jupyter
    return Console(stderr=True, force_jupyter=False, force_terminal=False if in_notebook else None)


def make_progress() -> Progress:
    """A progress bar on standard error, where that is a terminal."""
    console = make_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_interactive,  # rich would leave an empty line for every bar
    )


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` behind a progress bar."""
    with make_progress() as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def spinner(description: str) -> Iterator[None]:
    """Something is going on whose length is not known."""
    with make_console().status(description):
        yield
