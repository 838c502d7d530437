"""Progress on standard error: a bar with the time left; in a notebook, a line of text in the cell."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

T = TypeVar("T")

_COUNTED = (
    TextColumn("{task.description}"),
    BarColumn(),
    TaskProgressColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
)
_NOTEBOOK_SECONDS = 0.5
_NOTEBOOK_WIDTH = 140
_IS_SILENT = ContextVar("is_silent", default=False)


def make_console() -> Console:
    """Standard error; standard output stays free for results.

    In a notebook this is plain text: the kernel calls itself a terminal, and keeps every frame drawn there.
    """
    return Console(
        stderr=True,
        quiet=_IS_SILENT.get(),
        force_jupyter=False,
        force_terminal=False if _in_notebook() else None,
    )


@contextmanager
def silenced() -> Iterator[None]:
    """Show nothing inside: of several workers that share a run, one speaks."""
    token = _IS_SILENT.set(True)
    try:
        yield
    finally:
        _IS_SILENT.reset(token)


def make_progress(*columns: ProgressColumn) -> Progress:
    """A progress bar that goes away at its end; nothing where there is neither a terminal nor a notebook.

    `columns` of rich; without any: description, bar, share, count and time left.
    """
    console = make_console()
    kind = NotebookProgress if _in_notebook() and not console.quiet else Progress
    shows = kind is NotebookProgress or (console.is_interactive and not console.quiet)
    return kind(
        *(columns or _COUNTED),
        console=console,
        transient=True,
        auto_refresh=kind is Progress,  # by a thread, which draws on terminals only
        disable=not shows,  # rich would leave empty lines
    )


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` behind a progress bar."""
    with make_progress() as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def byte_bar(description: str, size: int | None) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of bytes with the speed and the time left: gives a function that takes how many there are, and
    how many there will be where that is known by now."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with make_progress(TextColumn("{task.description}"), *columns) as progress:
        task = progress.add_task(description, total=size)
        yield lambda done, total: progress.update(task, completed=done, total=total or size)


@contextmanager
def spinner(description: str) -> Iterator[None]:
    """Something is going on whose length is not known."""
    with make_progress(SpinnerColumn(), TextColumn("{task.description}")) as progress:
        progress.add_task(description, total=None)
        progress.refresh()
        yield


class NotebookProgress(Progress):
    """rich's progress as one line of text in a notebook cell, replaced twice a second.

    rich's own way draws with ipywidgets, and warns in every cell where that is not installed.
    """

    _handle: Any = None
    _shown = 0.0

    def start(self) -> None:
        from IPython.display import Pretty, display

        self._handle = display(Pretty(""), display_id=True)  # type: ignore[no-untyped-call]  # IPython is untyped

    def refresh(self) -> None:
        if self._handle is None or time.monotonic() - self._shown < _NOTEBOOK_SECONDS:
            return
        self._shown = time.monotonic()
        page = io.StringIO()
        console = Console(file=page, width=_NOTEBOOK_WIDTH, force_jupyter=False, force_terminal=False)
        console.print(self.get_renderable())
        self._write(page.getvalue().strip())

    def stop(self) -> None:
        if self._handle is not None:
            self._write("")

    def _write(self, text: str) -> None:
        from IPython.display import Pretty

        self._handle.update(Pretty(text))  # type: ignore[no-untyped-call]  # IPython is untyped


def _in_notebook() -> bool:
    return Console().is_jupyter
