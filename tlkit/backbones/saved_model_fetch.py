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
from tlkit.zoo.cache import Progress, announced, home, hub_folder, keep, offline, storage_errors
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.saved_model_files import find_saved_model, hub_place
from tlkit.zoo.source import HubSource


def fetch_saved_model(source: zoo.ZooEntry | HubSource, progress: Progress | None = None) -> Path:
    """The folder of a SavedModel: of an entry, or of a source of the kind `hub`.

    A handle is downloaded at first use, into the cache folder. Raises FetchError (offline, refused, wrong
    hash, no SavedModel) and StorageError.
    """
    if isinstance(source, zoo.ZooEntry):
        if not isinstance(source.source, HubSource):
            return find_saved_model(zoo.fetch_weights(source, progress))
        source = source.source
    folder = _find(source.handle, progress)
    if source.sha256 is not None and hash_of(folder) != source.sha256:
        again = ". Delete that folder to download it again" if folder == hub_folder(source.handle) else ""
        raise FetchError(
            f"The SavedModel {source.handle} in {folder} does not have the sha256 that the zoo names "
            f"({source.sha256}): it is damaged, or another one{again}"
        )
    return folder


def _find(handle: str, progress: Progress | None) -> Path:
    path = Path(handle).expanduser()
    if path.is_dir():
        return find_saved_model(path)
    if path.is_file():
        return _unpacked(path, progress)
    if handle.startswith("https://"):
        return _resolved(handle, progress)
    raise FetchError(
        f"There is no SavedModel at {handle!r}: expected a folder, a .tar.gz, or a handle that begins with "
        "https://"
    )


def _unpacked(archive: Path, progress: Progress | None) -> Path:
    def make(scratch: Path) -> Path:
        with announced(progress, f"Unpacking {archive.name}"):
            unpack(archive, scratch / "unpacked", max_bytes=limit_for(archive), max_files=MAX_FILES)
        return find_saved_model(scratch / "unpacked", named=str(archive))

    return keep(hub_place(str(archive)), None, make)


def _resolved(handle: str, progress: Progress | None) -> Path:
    cache = home() / "hub"
    kept = hub_folder(handle)
    if kept.is_dir():
        return find_saved_model(kept)
    if offline():
        raise FetchError(
            f"{handle} is not in the cache folder {home()} and TLKIT_OFFLINE forbids downloads: unset it, "
            "or fetch on a connected machine and copy that folder"
        )
    with storage_errors():
        cache.mkdir(parents=True, exist_ok=True)
    with announced(progress, f"Downloading {handle} with tensorflow-hub"), _cache_folder(cache):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pkg_resources, which it imports, says that it is deprecated
                import tensorflow_hub
            return find_saved_model(Path(tensorflow_hub.resolve(handle)))
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
