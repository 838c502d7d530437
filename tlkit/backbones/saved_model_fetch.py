"""Find the SavedModel that a source names: a folder, an archive, or a handle for tensorflow-hub."""

from __future__ import annotations

import os
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlkit import zoo
from tlkit.errors import FetchError
from tlkit.zoo.archive import MAX_FILES, limit_for, unpack
from tlkit.zoo.cache import Progress, announced, forbidden, keep, offline
from tlkit.zoo.hashing import hash_of, hash_of_copy
from tlkit.zoo.libraries import hub_folder, own_saved_model
from tlkit.zoo.saved_model_files import find_saved_model, hub_place
from tlkit.zoo.source import HubSource


def fetch_saved_model(source: zoo.ZooEntry | HubSource, progress: Progress | None = None) -> Path:
    """The folder of a SavedModel: of an entry, or of a source of the kind `hub`.

    A handle is downloaded at first use, into the cache folder, and again where what is there is damaged.
    Raises FetchError (offline, refused, wrong hash, no SavedModel) and StorageError.
    """
    if isinstance(source, zoo.ZooEntry):
        if not isinstance(source.source, HubSource):
            return find_saved_model(zoo.fetch_weights(source, progress))
        source = source.source
    path = Path(source.handle).expanduser()
    if path.is_dir():
        return _checked(find_saved_model(path), source)
    if path.is_file():
        return _checked(_unpacked(path, progress), source)
    if source.handle.startswith("https://"):
        return keep(
            hub_folder(source.handle), source.sha256, lambda scratch: _resolved(source, scratch, progress)
        )
    raise FetchError(
        f"There is no SavedModel at {source.handle!r}: expected a folder, a .tar.gz, or a handle that begins "
        "with https://"
    )


def _checked(folder: Path, source: HubSource) -> Path:
    received = None if source.sha256 is None else hash_of(folder)
    if received != source.sha256:
        raise FetchError(
            f"The SavedModel {source.handle} does not have the sha256 that the zoo names ({source.sha256}) "
            f"but {received}: it is damaged, or another one"
        )
    return folder


def _unpacked(archive: Path, progress: Progress | None) -> Path:
    def make(scratch: Path) -> Path:
        with announced(progress, f"Unpacking {archive.name}"):
            unpack(archive, scratch / "unpacked", max_bytes=limit_for(archive), max_files=MAX_FILES)
        return find_saved_model(scratch / "unpacked", named=str(archive))

    return keep(hub_place(str(archive)), None, make)


def _resolved(source: HubSource, scratch: Path, progress: Progress | None) -> Path:
    """The SavedModel of a handle, in `scratch`: out of tensorflow-hub's own cache folder, or downloaded."""
    theirs = own_saved_model(source.handle)
    if theirs is None and offline():
        raise forbidden(source.handle, hub_folder(source.handle))
    if theirs is None:
        found = _downloaded(source.handle, scratch, progress)
        return _checked(find_saved_model(found, named=source.handle), source)
    hash_of_copy(find_saved_model(theirs), scratch / "copy")
    return _checked(scratch / "copy", source)


def _downloaded(handle: str, folder: Path, progress: Progress | None) -> Path:
    with announced(progress, f"Downloading {handle} with tensorflow-hub"), _cache_folder(folder):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pkg_resources, which it imports, says that it is deprecated
                import tensorflow_hub
            return Path(tensorflow_hub.resolve(handle))
        # Network errors are OSErrors; what is no archive, or holds links, is the others.
        except (OSError, ValueError, EOFError, RuntimeError, tarfile.TarError) as error:
            raise FetchError(
                f"{handle} cannot be downloaded: {' '.join(str(error).split())[:200]}. "
                "Check the handle and the network; a downloaded .tar.gz works, too"
            ) from error


@contextmanager
def _cache_folder(folder: Path) -> Iterator[None]:
    """tensorflow-hub reads where to keep things, and in which form, from the environment alone."""
    settings = {"TFHUB_CACHE_DIR": str(folder), "TFHUB_MODEL_LOAD_FORMAT": "COMPRESSED"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
