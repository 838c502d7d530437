"""Every error that tlkit raises for a reason it understands.

TlkitError                  exit code 2: the input, the config or the machine's state is wrong
├── ConfigError             a key, a value or a combination of them in the config
├── UnknownNameError        a backbone, plan, sample … that does not exist, with the nearest one
├── DataError               the examples cannot be used as they are
│   └── DataCheckError      exit code 3: the examples were checked and did not pass
├── FetchError              something could not be downloaded, or is not what was pinned
├── StorageError            a file or folder cannot be written or read
├── TrainingError           training stopped: a loss that is not finite, memory that ran out
├── Interrupted             exit code 130: Ctrl-C; the message says what was saved
└── InternalError           exit code 1: our own fault
    ├── FrozenWeightsMoved  the proof after a stage found a frozen weight that changed
    └── ExportMismatch      an exported model answers differently from the run
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TlkitError(Exception):
    """Base class. `str(error)` is one line: what is wrong, what was received, what is allowed.

    `keeps_best`: it stopped training, and the model is that of the best epoch so far.
    """

    exit_code = 2
    keeps_best = False


class ConfigError(TlkitError):
    """A key, a value or a combination of values in the config is wrong."""


class UnknownNameError(TlkitError):
    """A name that no registry holds."""

    def __init__(self, kind: str, name: str, allowed: Iterable[str], see: str = "") -> None:
        super().__init__(f"Unknown {kind} {name!r}.{suggest(name, allowed)}{f' See: {see}' if see else ''}")


class DataError(TlkitError):
    """The examples cannot be used as they are."""


class DataCheckError(DataError):
    """The examples were checked and did not pass."""

    exit_code = 3


class FetchError(TlkitError):
    """Something could not be downloaded, or is not what was pinned."""


class StorageError(TlkitError):
    """A file or folder cannot be written or read."""


class TrainingError(TlkitError):
    """Training stopped before its end."""


class Interrupted(TlkitError):
    """Somebody pressed Ctrl-C; what there was is saved."""

    exit_code = 130


class InternalError(TlkitError):
    """Something that tlkit promises did not hold."""

    exit_code = 1


class FrozenWeightsMoved(InternalError):
    """A weight that a stage froze is not what it was before the stage."""


class ExportMismatch(InternalError):
    """An exported model answers differently from the run that it came from."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """A sentence with the nearest allowed name, or with the allowed ones when they are few."""
    names = list(allowed)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if nearest:
        return f" Did you mean {nearest[0]!r}?"
    return f" Allowed: {', '.join(names)}." if names and len(names) <= 12 else ""
