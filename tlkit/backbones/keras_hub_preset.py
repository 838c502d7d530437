"""KerasHub's presets: KerasHub downloads their weights and vocabularies, at first use, into its own cache."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import keras

from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.backbones.keras_hub_text import adapt, keras_hub_class
from tlkit.errors import ConfigError, FetchError, StorageError
from tlkit.zoo.cache import home, offline


def load_preset(
    preset: str,
    *,
    family: str,
    pooler: bool,
    activation: str,
    layer_norm_epsilon: float | None = None,
    **_arguments: Any,
) -> keras.Model:
    """The encoder of a preset with its weights; otherwise as `build_keras_hub_text`.

    Its sizes are the preset's own. Raises FetchError where it cannot be downloaded, ConfigError where
    KerasHub has no such preset.
    """
    with _one_line_errors(preset):
        whole = keras_hub_class(family).from_preset(preset)
    return adapt(
        whole,
        family,
        pooler=pooler,
        activation=activation,
        layer_norm_epsilon=layer_norm_epsilon,
        keep_weights=True,
    )


def preset_vocabulary(preset: str, files: tuple[str, ...]) -> Path:
    """The folder with a preset's vocabulary, in the cache folder or, for a preset on this machine, its own.

    Raises what `load_preset` raises, and StorageError where the cache folder cannot be written.
    """
    local = Path(preset).expanduser() / "assets" / "tokenizer"
    if local.is_dir():
        return local
    folder = home() / "keras_hub" / preset.replace("/", "-").replace(":", "-")
    if all((folder / name).is_file() for name in files):
        return folder
    with _one_line_errors(preset):
        tokenizer = import_keras_hub().models.Tokenizer.from_preset(preset)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
            tokenizer.save_assets(scratch)
            folder.mkdir(exist_ok=True)
            for path in Path(scratch).iterdir():
                path.replace(folder / path.name)
    except OSError as error:
        raise StorageError(
            f"The cache folder {home()} cannot be used: {error.strerror or error}. "
            "Free some space or set TLKIT_HOME to another folder"
        ) from error
    return folder


@contextmanager
def _one_line_errors(preset: str) -> Iterator[None]:
    import requests  # what kagglehub, KerasHub's downloader, uses

    session: Any = requests.Session
    send = session.send
    if offline():
        if preset.startswith(("hf://", "modelscope://", "gs://")):  # these are downloaded in other ways
            raise FetchError(
                f"The preset {preset} would be looked up on a network, which TLKIT_OFFLINE forbids"
            )
        session.send = _refuse
    try:
        # KerasHub reports its downloads on standard output, which is for results.
        with redirect_stdout(sys.stderr):
            yield
    except _OfflineError as error:
        raise FetchError(
            f"The preset {preset} is not in KerasHub's cache and TLKIT_OFFLINE forbids downloads: "
            "unset it, or build with weights: none"
        ) from error
    except requests.RequestException as error:
        raise FetchError(
            f"KerasHub could not download the preset {preset}: {type(error).__name__}. Check the network; "
            "the entries with source 'wheel' need only a package index"
        ) from error
    except FileNotFoundError as error:
        raise FetchError(f"KerasHub could not read the preset {preset}: {error}") from error
    except ValueError as error:
        raise ConfigError(
            f"KerasHub refuses the preset {preset}: {' '.join(str(error).split())[:200]}"
        ) from error
    finally:
        session.send = send


class _OfflineError(Exception):
    """A download was asked for although downloads are forbidden."""


def _refuse(*_arguments: object, **_named: object) -> None:
    raise _OfflineError
