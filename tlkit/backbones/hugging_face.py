"""Put the weights of a Hugging Face folder into a text backbone: other names and axes, equal numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from tlkit.backbones.hugging_face_names import FAMILIES, ONE_SEGMENT, OTHER_NAMES, POSITIONS, VARIABLES, Names
from tlkit.errors import FetchError
from tlkit.zoo.hugging_face import padding_token_of
from tlkit.zoo.safetensors_files import read_json, tensor_files

Array = NDArray[np.float32]


def load_hugging_face(model: keras.Model, folder: Path) -> None:
    """Fill `model`, whose name is its family, from the safetensors of a Hugging Face folder.

    Tensors of a head (a classifier, a language model) are left out, and the pooler where the model has none.
    Raises FetchError when a tensor is missing, has another shape, or belongs to the encoder and has no place.
    """
    names = FAMILIES[model.name]
    files = tensor_files(folder)
    prefix = names.prefix if any(name.startswith(names.prefix) for name in files) else ""
    wanted = {weight.path: _tensor_name(weight.path, names, prefix, files) for weight in model.weights}
    missing = sorted(name for name in wanted.values() if name not in files)
    if missing:
        raise FetchError(
            f"{folder} lacks {len(missing)} tensors of a {model.name} encoder, like {missing[0]!r}"
        )
    _check_all_used(files, set(wanted.values()), names, prefix, folder)
    by_file = defaultdict(list)
    for weight in model.weights:
        by_file[files[wanted[weight.path]]].append(weight)
    for file, weights in by_file.items():
        for weight, value in zip(weights, _tensors(file, [wanted[w.path] for w in weights]), strict=True):
            name = wanted[weight.path]
            if names.counted_positions and name == prefix + POSITIONS:
                value = _own_positions(value, prefix + ONE_SEGMENT, files, folder)
            weight.assign(_fitted(value, weight, name, folder))


def _tensor_name(path: str, names: Names, prefix: str, files: dict[str, Path]) -> str:
    layer, _, variable = path.rpartition("/")
    for pattern, module in names.modules.items():
        numbers = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(pattern))
        if found := re.fullmatch(numbers, layer):
            stem = prefix + module.format(**found.groupdict())
            candidates = [f"{stem}{ending}" for ending in VARIABLES[variable]]
            return next((name for name in candidates if name in files), candidates[0])
    raise FetchError(f"No name is known for the weight {path!r} in files of Hugging Face")


def _fitted(value: Array, weight: keras.Variable, name: str, folder: Path) -> Array:
    shape, received = tuple(weight.shape), value.shape
    if weight.path.endswith("/kernel"):
        value = value.T  # PyTorch has (out, in)
    # Attention has its heads on axes of their own; everything else has the same axes.
    if value.size != np.prod(shape) or (value.ndim == len(shape) and value.shape != shape):
        raise FetchError(f"{name!r} in {folder} has the shape {received}; {weight.path!r} needs {shape}")
    return value.reshape(shape)


def _own_positions(table: Array, segment: str, files: dict[str, Path], folder: Path) -> Array:
    first = padding_token_of(read_json(folder / "config.json")) + 1
    if segment in files:
        table = table + next(_tensors(files[segment], [segment]))[0]
    return table[first:]


def _tensors(file: Path, names: list[str]) -> Iterator[Array]:
    import safetensors

    try:
        with safetensors.safe_open(file, framework="np") as opened:
            for name in names:
                yield opened.get_tensor(name).astype("float32")
    except (OSError, safetensors.SafetensorError) as error:
        raise FetchError(f"{file} is not a whole safetensors file: {error}") from error


def _check_all_used(files: dict[str, Path], used: set[str], names: Names, prefix: str, folder: Path) -> None:
    """The encoder's own tensors must all have a place: else this is another architecture."""
    begins = tuple(prefix + part for part in names.encoder)
    own = [name for name in files if name.startswith(begins) and name not in used]
    left = sorted(name for name in own if not re.search(OTHER_NAMES, name))
    if names.counted_positions:
        left = [name for name in left if name != prefix + ONE_SEGMENT]
    if left:
        raise FetchError(
            f"{folder} holds {len(left)} tensors that the encoder has no place for, like {left[0]!r}"
        )
