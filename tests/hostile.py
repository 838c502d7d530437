"""How makers of hostile files are listed for the test that all of them go through."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Trap:
    """What was executed, if the folder at `path` is there. Pickles as a call that makes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "executed"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


Maker = Callable[[Path, Trap], tuple[Callable[[], Any], str]]


def registering(makers: dict[str, Maker]) -> Callable[[str], Callable[[Maker], None]]:
    """A decorator that lists a maker by its name: (folder, trap) → (what a user does, what it says)."""

    def hostile(name: str) -> Callable[[Maker], None]:
        def register(maker: Maker) -> None:
            assert name not in makers
            makers[name] = maker

        return register

    return hostile
