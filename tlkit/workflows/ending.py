"""How a run ends that does not come to its end: what is kept of it, and what is said."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import keras

from tlkit.errors import DataError, Interrupted, StorageError, TlkitError, TrainingError
from tlkit.progress import make_console
from tlkit.results import RunFolder
from tlkit.results.folder import Status
from tlkit.workflows.evaluate import save_model


@contextmanager
def ending_told(
    model: keras.Model, folder: RunFolder, speaks: bool = True, objects: Sequence[str] = ()
) -> Iterator[None]:
    """Whatever ends the block early is noted in the run folder, and what is raised says how to go on.

    What a user's own code raises stays as it is. A disk that is full may hold none of this: then the saves
    and checkpoints that there are stay, and the first error is the one that is raised.

    Args:
        model: The run's; where what ended training says so (`keeps_best`), that of the best epoch so far,
            which is written.
        folder: The run's.
        speaks: Whether this is the one of several workers that writes the model, and says so.
        objects: Names of the Python objects that the run was given, and that no shell can give again.

    Raises:
        Interrupted: Ctrl-C was pressed.
    """
    go_on = f"go on with: tlkit finetune --out {shlex.quote(str(folder.path))} --resume"
    if objects:
        same = f"the same {', '.join(objects)}"
        go_on = f"go on with: tlkit.finetune(out={str(folder.path)!r}, resume=True, …) and {same}"
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as pressed:
        if not speaks:
            raise Interrupted("Interrupted.") from None
        best = f". The best model so far is in {folder.path}; use it with: tlkit predict {folder.path}, or"
        in_training = isinstance(pressed, Interrupted) and pressed.keeps_best
        kept = _keep(model, folder) if in_training else folder.model.is_file()
        _note("interrupted", folder)
        raise Interrupted(f"Interrupted{best if kept else ';'} {go_on}") from None
    except SystemExit:
        _note("interrupted", folder)
        _say(f"Terminated; {go_on}")
        raise
    except (DataError, StorageError, TrainingError) as error:
        notes = []
        if speaks and error.keeps_best and _keep(model, folder):
            notes.append(f"The best model so far is in {folder.path}.")
        _note("failed", folder)
        if speaks and not isinstance(error, TrainingError):  # its numbers would come again
            notes.append(f"When that is mended, {go_on}")
        if not notes:
            raise
        raise type(error)(" ".join([f"{str(error).rstrip('.')}.", *notes])) from None
    except BaseException as error:
        _note("failed", folder)
        if not isinstance(error, TlkitError):
            _say(f"Stopped by {type(error).__name__}; when that is mended, {go_on}")
        raise


def _keep(model: keras.Model, folder: RunFolder) -> bool:
    """Write the model; whether that was possible."""
    try:
        save_model(model, folder)
    except StorageError:
        return False
    return True


def _note(status: Status, folder: RunFolder) -> None:
    with suppress(StorageError):
        folder.write_state(status)


def _say(line: str) -> None:
    make_console().print(line, highlight=False, soft_wrap=True)
