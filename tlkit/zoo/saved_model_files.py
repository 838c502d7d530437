"""TensorFlow SavedModels as files: which folder is one, which entries have one, and which are trusted."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from tlkit.errors import FetchError, StorageError
from tlkit.zoo.cache import home
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.hashing import hash_of_file
from tlkit.zoo.libraries import hub_folder
from tlkit.zoo.source import HubSource

GRAPH_FILE = "saved_model.pb"
FAMILY = "saved_model"


def is_saved_model(entry: ZooEntry) -> bool:
    """Whether the backbone is a SavedModel: one from `hub`, or the folder of one from any other source."""
    return isinstance(entry.source, HubSource) or entry.family == FAMILY


def hub_place(handle: str) -> Path:
    """Where the SavedModel of a handle is on this machine, or will be: a folder of the user's own, or in the
    cache folder what an archive holds, or what tensorflow-hub downloads."""
    local = Path(handle).expanduser()
    if local.is_file():
        return home() / "hub" / f"archive-{hash_of_file(local)}" / "saved_model"
    return local if local.is_dir() else hub_folder(handle)


def find_saved_model(folder: Path, named: str | None = None) -> Path:
    """The SavedModel in a folder: itself, or the one folder in it.

    Raises FetchError where there is none; it calls the folder `named`, as the folder of what was unpacked is
    gone by then.
    """
    inside = [path.parent for path in sorted(folder.glob(f"*/{GRAPH_FILE}"))]
    if (folder / GRAPH_FILE).is_file():
        return folder
    if len(inside) == 1:
        return inside[0]
    missing = f"no SavedModel (no {GRAPH_FILE} in it, nor in a folder in it)"
    ask = "put one into an archive of its own" if named else "name the folder of one"
    raise FetchError(f"{named or folder} holds {'several SavedModels' if inside else missing}: {ask}")


def remember_trust(sha256: str) -> None:
    """Note that somebody on this machine trusts the SavedModel with this hash. Raises StorageError."""
    note = _note(sha256)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    except OSError as error:
        raise StorageError(f"{note} cannot be written: {error.strerror or error}") from error


def is_trusted(sha256: str) -> bool:
    """Whether `remember_trust` was called for this hash."""
    return _note(sha256).is_file()


def _note(sha256: str) -> Path:
    # Not in the cache folder: others may write there, or hand over one that is filled.
    return platformdirs.user_config_path("tlkit", appauthor=False) / "trusted" / sha256
