"""Which tensors a Hugging Face folder holds, and in which of its files; nothing is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tlkit.errors import FetchError

INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def tensor_files(folder: Path) -> dict[str, Path]:
    """Name of each tensor → the file that holds it, in one file or several.

    Raises FetchError when there are none, when a file is missing or damaged, or when there are only pickled
    weights, which could execute code.
    """
    if (folder / INDEX).is_file():
        names = _weight_map(folder / INDEX)
    elif files := sorted(folder.glob("*.safetensors")):
        names = {name: file.name for file in files for name in _names(file)}
    elif pickled := next((name for name in PICKLED if (folder / name).is_file()), None):
        raise FetchError(
            f"{folder} has its weights in {pickled}, which is a pickle and could execute code: only "
            "safetensors is read. Save the model again with save_pretrained(…, safe_serialization=True)"
        )
    else:
        raise FetchError(f"{folder} has no weights: no model.safetensors, and no {INDEX}")
    missing = sorted({name for name in names.values() if not (folder / name).is_file()})
    if missing:
        raise FetchError(f"{folder} has no {missing[0]}, which its {INDEX} names")
    return {name: folder / file for name, file in names.items()}


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises FetchError when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FetchError(f"{path.parent} has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise FetchError(f"{path} cannot be read as JSON: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise FetchError(f"{path} must hold a mapping, received {type(content).__name__}")
    return content


def _weight_map(path: Path) -> dict[str, str]:
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise FetchError(f"{path} has no 'weight_map'")
    outside = [file for file in names.values() if not isinstance(file, str) or Path(file).name != file]
    if outside:
        raise FetchError(f"{path} names a file outside its folder: {outside[0]!r}")
    return names


def _names(path: Path) -> list[str]:
    import safetensors  # here, because listing the zoo needs none of it

    try:
        with safetensors.safe_open(path, framework="np") as file:
            return list(file.keys())
    except (OSError, safetensors.SafetensorError) as error:
        raise FetchError(f"{path} is not a whole safetensors file: {error}") from error
