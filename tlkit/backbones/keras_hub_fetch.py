"""The files of KerasHub's presets: KerasHub downloads them, tlkit keeps those that it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from tlkit.backbones.keras_hub_check import recorded_files
from tlkit.backbones.keras_hub_errors import preset_errors
from tlkit.backbones.keras_hub_image import IMAGE_BACKBONES
from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.backbones.keras_hub_text import CLASSES
from tlkit.errors import ConfigError, FetchError
from tlkit.zoo import open_copy
from tlkit.zoo.cache import Progress, announced, expected_hash, keep, offline
from tlkit.zoo.hashing import hash_of_copy
from tlkit.zoo.libraries import own_preset, preset_folder

_VOCABULARY = Path("assets") / "tokenizer"


def fetch_preset(preset: str, progress: Progress | None = None) -> Path:
    """The folder of a preset: one on this machine, or in the cache folder, downloaded at first use.

    It holds what a backbone needs: config, weights, vocabulary, preprocessing of pictures. What kagglehub or
    huggingface_hub have in their own cache folders is taken from there. Raises FetchError where it cannot be
    downloaded, ConfigError where KerasHub has no such preset or tlkit cannot use it, and StorageError.
    """
    local = Path(preset).expanduser()
    if local.is_dir():
        return local

    def make(scratch: Path) -> Path:
        with announced(progress, f"Fetching the preset {preset} with KerasHub"), _network(preset, scratch):
            return _taken(preset, scratch)

    return keep(preset_folder(preset), None, make)


@contextmanager
def open_preset(preset: str) -> Iterator[str]:
    """The folder of a preset for reading: one on this machine as it is, else a private copy of what is in the
    cache folder. Raises as `fetch_preset` does."""
    folder = fetch_preset(preset)
    sha256 = expected_hash(folder, None)
    if folder != preset_folder(preset) or sha256 is None:
        yield str(folder)
        return
    with open_copy(folder, sha256) as copy:
        yield str(copy)


def image_converter(preset: str) -> Any | None:
    """KerasHub's preprocessing of a preset for pictures; None where the preset holds none."""
    try:
        return import_keras_hub().layers.ImageConverter.from_preset(preset)
    except FileNotFoundError:
        return None


def require_known(whole: keras.Model, preset: str) -> bool:
    """Whether the backbone of a preset is for pictures, else for texts. Raises ConfigError: for neither."""
    backbone = type(whole).__name__
    if backbone not in IMAGE_BACKBONES and backbone not in CLASSES.values():
        raise ConfigError(
            f"The preset {preset} is a {backbone}, which is not a backbone that tlkit knows. "
            f"It knows {', '.join((*IMAGE_BACKBONES, *CLASSES.values()))}"
        )
    return backbone in IMAGE_BACKBONES


def _taken(preset: str, scratch: Path) -> Path:
    """A folder with the files that KerasHub opens of a preset when it is loaded."""
    taken = scratch / "preset"
    with preset_errors(preset), recorded_files() as files:
        keras_hub = import_keras_hub()
        # Without its weights first: nobody waits for gigabytes of what tlkit cannot use.
        empty = keras_hub.models.Backbone.from_preset(preset, load_weights=False)
        for_pictures = require_known(empty, preset)
        keras_hub.models.Backbone.from_preset(preset)
        tokenizer = None if for_pictures else keras_hub.models.Tokenizer.from_preset(preset)
        if for_pictures:
            image_converter(preset)
    for name, found in files.items():
        hash_of_copy(found, taken / name)
    if tokenizer is not None and not (taken / _VOCABULARY).is_dir():  # made of other files, of Hugging Face
        (taken / _VOCABULARY).mkdir(parents=True)
        tokenizer.save_assets(str(taken / _VOCABULARY))
    return taken


@contextmanager
def _network(preset: str, scratch: Path) -> Iterator[None]:
    """What is not in the own cache folders of kagglehub and huggingface_hub is downloaded to `scratch`."""
    from huggingface_hub import constants

    theirs = own_preset(preset)
    if offline() and theirs is None and preset.startswith(("hf://", "modelscope://", "gs://")):
        there = "is damaged" if preset_folder(preset).exists() else "is not"
        raise FetchError(
            f"The preset {preset} {there} in the cache folder, and would be looked up on a network, which "
            "TLKIT_OFFLINE forbids"
        )
    before = os.environ.get("KAGGLEHUB_CACHE"), constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    if theirs is None:
        os.environ["KAGGLEHUB_CACHE"] = constants.HF_HUB_CACHE = str(scratch / "downloads")
    constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE or offline()
    try:
        yield
    finally:
        kaggle, constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = before
        os.environ.pop("KAGGLEHUB_CACHE", None)
        if kaggle is not None:
            os.environ["KAGGLEHUB_CACHE"] = kaggle
