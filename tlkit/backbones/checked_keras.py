"""Open files that Keras wrote, or that only look so: checked first, and with Keras's `safe_mode` on."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras

from tlkit.backbones.config_scan import check_config
from tlkit.backbones.h5_scan import check_h5
from tlkit.errors import FetchError, TlkitError
from tlkit.zoo.archive import check_archive, limit_for
from tlkit.zoo.what_it_is import what_it_is

_MAX_FILES = 10_000
_MAX_CONFIG_BYTES = 50_000_000


def load_checked_model(path: Path, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """The model in a `.keras` file, or in an `.h5` file of a whole model; not compiled.

    Its config may hold nothing but layers (see `check_config`), its weights nothing but numbers (`check_h5`).
    The file is opened more than once: where somebody else may write to it, give a private copy (`open_copy`).

    Raises FetchError, one line that says what was found; TypeError and ValueError where Keras cannot build a
    model whose files are in order.
    """
    if path.suffix == ".keras":
        _check_keras_archive(path, custom_objects)
    elif path.suffix not in (".h5", ".hdf5"):
        raise FetchError(f"{path} is {what_it_is(path)}: a saved model is a .keras or .h5 file")
    else:
        check_h5(path, str(path))
        check_config(_h5_config(path), str(path), custom_objects)
    try:
        model: keras.Model = keras.saving.load_model(
            path, compile=False, safe_mode=True, custom_objects=dict(custom_objects or {})
        )
    except (TypeError, ValueError, TlkitError):
        raise
    except Exception as error:  # a damaged file makes Keras raise anything
        raise FetchError(f"{path} cannot be opened as a Keras model: {first_line(error)}") from error
    return model


def load_checked_config(
    config: Any, where: str, custom_objects: Mapping[str, Any] | None = None
) -> keras.Model:
    """The model that a config from elsewhere (`where`) describes, with weights as its initialisers make them.

    Raises FetchError: the config holds something other than layers, or is damaged.
    """
    check_config(config, where, custom_objects)
    try:
        model = keras.saving.deserialize_keras_object(
            config, custom_objects=dict(custom_objects or {}), safe_mode=True
        )
    except TlkitError:
        raise
    except Exception as error:  # as above
        raise FetchError(f"{where} does not describe a Keras model: {first_line(error)}") from error
    if not isinstance(model, keras.Model):
        raise FetchError(f"{where} does not describe a Keras model, but a {type(model).__name__}")
    return model


def load_checked_weights(model: keras.Model, path: Path) -> None:
    """Fill `model` from a `.weights.h5` file. Raises FetchError: it is refused, damaged, or does not fit."""
    check_h5(path, str(path))
    try:
        model.load_weights(path)
    except Exception as error:  # as above
        raise FetchError(f"{path} does not hold weights of {model.name!r}: {first_line(error)}") from error


def check_preset_file(path: Path) -> None:
    """Refuse a config or weights of a KerasHub preset that are more than that, and a list of its files of
    weights that leads out of its folder. Raises FetchError."""
    if path.suffix == ".json":
        content = _json(path.read_bytes(), str(path))
        check_config(content, str(path))
        _check_weight_map(content, path)
    elif path.suffix == ".h5":
        check_h5(path, str(path))


def first_line(error: Exception) -> str:
    """What an error says, without what follows."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _check_keras_archive(path: Path, custom_objects: Mapping[str, Any] | None) -> None:
    if not zipfile.is_zipfile(path):
        raise FetchError(f"{path} is {what_it_is(path)}, not a .keras file")
    check_archive(path, max_bytes=limit_for(path), max_files=_MAX_FILES)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "config.json" not in names:
            raise FetchError(f"{path} is not a .keras file: it has no config.json")
        if archive.getinfo("config.json").file_size > _MAX_CONFIG_BYTES:
            raise FetchError(
                f"{path} was refused: its config.json is larger than {_MAX_CONFIG_BYTES:,} bytes"
            )
        config = _parsed(archive.read("config.json"), str(path))
        # Keras builds what it is for, when it compiles; here it does not.
        check_config(
            {key: value for key, value in config.items() if key != "compile_config"},
            str(path),
            custom_objects,
        )
        odd = [name for name in names if name.endswith((".npz", ".npy", ".pkl", ".pickle"))]
        if odd:
            raise FetchError(
                f"{path} was refused: it keeps its weights in {odd[0]!r}; only .weights.h5 is read"
            )
        for name in names:
            if name.endswith(".h5"):
                check_h5(io.BytesIO(archive.read(name)), f"{name} in {path}")


def _check_weight_map(content: Any, path: Path) -> None:
    files = content.get("weight_map") if isinstance(content, dict) else None
    if files is None:
        return
    if not isinstance(files, dict):
        raise FetchError(f"{path} has a 'weight_map' that is no list of files")
    named = [name for names in files.values() for name in (names if isinstance(names, list) else [names])]
    for name in named:
        if not isinstance(name, str) or Path(name).name != name or name == "..":
            raise FetchError(f"{path} was refused: it names a file outside its folder: {name!r}")


def _json(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"{where} has a config that cannot be read as JSON: {first_line(error)}") from error


def _h5_config(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
    if not isinstance(text, str | bytes):
        raise FetchError(f"{path} holds no model, only weights: an .h5 file needs a 'model_config'")
    return _parsed(text, str(path))


def _parsed(text: str | bytes, where: str) -> dict[str, Any]:
    config = _json(text, where)
    if not isinstance(config, dict):
        raise FetchError(f"{where} has a config that is no mapping, but {type(config).__name__}")
    return config
