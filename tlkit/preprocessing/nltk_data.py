"""NLTK's data: found where NLTK looks for it, never downloaded."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from typing import Any

from tlkit.errors import ConfigError


def require_nltk_data(resource: str, path: str) -> None:
    """Make sure that a resource of NLTK is there, such as `stopwords` at `corpora/stopwords`.

    Raises ConfigError with both ways to get it: NLTK's downloader, or a folder in `NLTK_DATA`.
    """
    import nltk  # it takes a second, and few runs need it

    # NLTK reads the variable when it is imported, which in a notebook may be before it is set.
    for folder in reversed([name for name in os.environ.get("NLTK_DATA", "").split(os.pathsep) if name]):
        if folder not in nltk.data.path:
            nltk.data.path.insert(0, folder)
    try:
        if not any(_is_there(nltk.data.find, place) for place in (f"{path}/", f"{path}.zip")):
            raise ConfigError(
                f"NLTK's data {resource!r} ({path}) is missing: run `python -m nltk.downloader {resource}` "
                f"(in Python: nltk.download({resource!r})), or set NLTK_DATA to a folder that holds {path}."
            )
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"NLTK's data {resource!r} ({path}) cannot be read: {' '.join(str(error).split())}. "
            f"Get it again: python -m nltk.downloader --force {resource}"
        ) from error


def _is_there(find: Callable[[str], Any], place: str) -> bool:
    try:
        find(place)
    except LookupError:
        return False
    return True
