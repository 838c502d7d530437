"""Check the files of KerasHub's presets as KerasHub opens them, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tlkit.backbones.checked_keras import check_preset_file
from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.errors import FetchError


@contextmanager
def checked_presets() -> Iterator[None]:
    """Inside, KerasHub raises FetchError for a preset whose configs hold more than layers (`check_config`),
    whose weights refer elsewhere (`check_h5`), or that names a file outside its folder."""
    import_keras_hub()
    # Private, but the one place that configs and weights go through: a folder's, Kaggle's, Hugging Face's.
    # Tried with KerasHub 0.32.0.
    from keras_hub.src.utils import preset_utils

    get_file: Any = preset_utils.get_file

    def checked(preset: Any, path: str) -> Any:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise FetchError(
                f"The preset {preset} was refused: it names the file {path!r}, outside its folder"
            )
        found = get_file(preset, path)
        check_preset_file(Path(found))
        return found

    preset_utils.get_file = checked
    try:
        yield
    finally:
        preset_utils.get_file = get_file
