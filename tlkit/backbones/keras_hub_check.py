"""Check the files of KerasHub's presets as KerasHub opens them, wherever they come from."""

from __future__ import annotations

import sys
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
    whose weights refer elsewhere (`check_h5`), or that names, or links to, a file outside its folder."""
    import_keras_hub()
    # Private, but the one place that configs, weights and vocabularies go through: a folder's, Kaggle's,
    # Hugging Face's. Tried with KerasHub 0.32.0.
    from keras_hub.src.utils import preset_utils

    get_file: Any = preset_utils.get_file

    def checked(preset: Any, path: str) -> Any:
        if (
            not isinstance(path, str)
            or PurePosixPath(path).is_absolute()
            or ".." in PurePosixPath(path).parts
        ):
            raise FetchError(
                f"The preset {preset} was refused: it names the file {path!r}, outside its folder"
            )
        found = Path(get_file(preset, path))
        if Path(preset).is_dir():
            check_inside(Path(preset), path, found)
        check_preset_file(found)
        return str(found)

    _replace(get_file, checked)
    try:
        yield
    finally:
        _replace(checked, get_file)


@contextmanager
def recorded_files() -> Iterator[dict[str, Path]]:
    """The files that KerasHub opens inside, by their paths in the folder of the preset; see `checked_presets`
    for how."""
    import_keras_hub()
    from keras_hub.src.utils import preset_utils

    get_file: Any = preset_utils.get_file
    found: dict[str, Path] = {}

    def recording(preset: Any, path: str) -> Any:
        file = get_file(preset, path)
        found[path] = Path(file)
        return file

    _replace(get_file, recording)
    try:
        yield found
    finally:
        _replace(recording, get_file)


def _replace(function: Any, other: Any) -> None:
    """Wherever KerasHub holds it: its readers of safetensors and its tokenizers import it by its name, some
    of them only when they are needed."""
    for name, module in list(sys.modules.items()):
        if name.startswith("keras_hub.") and getattr(module, "get_file", None) is function:
            module.__dict__["get_file"] = other


def check_inside(folder: Path, path: str, found: Path) -> None:
    """Raise FetchError for a link out of the folder of a preset. Hugging Face's own cache keeps the files of
    a folder beside it."""
    folder, real = folder.resolve(), found.resolve()
    allowed = [folder]
    if folder.parent.name == "snapshots":
        allowed.append(folder.parents[1] / "blobs")
    if not any(real.is_relative_to(place) for place in allowed):
        raise FetchError(
            f"The preset {folder} was refused: its file {path!r} is a link to {str(real)!r}, outside its "
            "folder"
        )
