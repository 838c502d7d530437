"""What Keras, KerasHub and tensorflow-hub download: where tlkit keeps it, and where they do themselves.

tlkit's cache folder comes first; what is in a library's own is taken over from there, and not downloaded
again. Looked up by name, without these libraries.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tlkit.zoo.cache import home
from tlkit.zoo.entry import ImageInput, TextInput, ZooEntry
from tlkit.zoo.source import HubSource, KerasHubSource, KerasSource, Source

Library = Literal["Keras", "KerasHub", "tensorflow-hub"]


def library_of(source: Source) -> Library | None:
    """The library that downloads the weights of a source; None where tlkit does, or nobody."""
    if isinstance(source, KerasSource):
        return "Keras"
    if isinstance(source, KerasHubSource):
        return None if Path(source.preset).expanduser().is_dir() else "KerasHub"
    if isinstance(source, HubSource):
        return None if Path(source.handle).expanduser().exists() else "tensorflow-hub"
    return None


def hub_folder(handle: str) -> Path:
    """Where the SavedModel of a handle is, or will be, in the cache folder."""
    return home() / "hub" / _name_in_tensorflow_hub(handle) / "saved_model"


def preset_folder(preset: str) -> Path:
    """Where a KerasHub preset is, or will be, in the cache folder: its files, as in a preset's own folder."""
    return home() / "keras_hub" / _slot(re.sub(r"[^\w.-]+", "-", preset), preset) / "preset"


def keras_file(application: str, name: str, file_hash: str | None) -> Path:
    """Where Keras's file called `name`, with the hash that Keras says, is or will be in the cache folder."""
    return home() / "keras" / _slot(application, f"{name} {file_hash}") / name


def library_files(entry: ZooEntry) -> tuple[Path, ...]:
    """The files and folders in the cache folder with the weights of an entry that a library downloads.

    Of a preset or a SavedModel it is one, which may not be there. Of Keras it is what is there: of some
    architectures it has weights for several sizes of pictures, each in a file.
    """
    if isinstance(entry.source, HubSource):
        return (hub_folder(entry.source.handle),)
    if isinstance(entry.source, KerasHubSource):
        return (preset_folder(entry.source.preset),)
    if isinstance(entry.source, KerasSource):
        files = [path for slot in library_slots(entry) for path in sorted(slot.glob("*.h5"))]
        return tuple(path for path in files if "notop" in _letters(path.stem))
    return ()


def fits_size(entry: ZooEntry, path: Path) -> bool:
    """Whether `path` has weights for pictures of the entry's own size: a file of Keras may name another one,
    as mobilenet_1_0_128_tf_no_top.h5 does."""
    named = re.search(r"_(\d{2,3})_", path.name) if isinstance(entry.source, KerasSource) else None
    return named is None or not isinstance(entry.input, ImageInput) or int(named[1]) == entry.input.image_size


def library_slots(entry: ZooEntry) -> tuple[Path, ...]:
    """The folders of the cache folder that hold what a library downloads for an entry, and nothing else."""
    if isinstance(entry.source, KerasSource):
        return tuple(sorted((home() / "keras").glob(f"{glob.escape(_application(entry))}-*/")))
    return tuple(path.parent for path in library_files(entry))


def preprocessing_of(entry: ZooEntry) -> HubSource | None:
    """The SavedModel that makes the inputs of an entry's own, if there is one."""
    takes = entry.input
    return takes.preprocessing if isinstance(takes, TextInput) else None


def own_place(entry: ZooEntry) -> Path | None:
    """Where the weights of an entry are in the own cache folder of the library that downloads them, if there.
    Of Keras it is the file without a classification top, which is the one that a backbone loads."""
    if isinstance(entry.source, KerasSource):
        # They are called resnet50_weights_…_notop.h5, weights_mobilenet_v3_small_…_no_top_v2.h5 and the like.
        wanted = re.compile(rf"(weights)?{re.escape(_application(entry).lower())}(?!v\d).*notop.*")
        files = [file for file in sorted(keras_models().glob("*.h5")) if fits_size(entry, file)]
        return next((file for file in files if wanted.fullmatch(_letters(file.stem))), None)
    if isinstance(entry.source, KerasHubSource):
        return own_preset(entry.source.preset)
    return own_saved_model(entry.source.handle) if isinstance(entry.source, HubSource) else None


def keras_models() -> Path:
    """Where Keras keeps the weights of keras.applications."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def own_preset(preset: str) -> Path | None:
    """Where kagglehub or huggingface_hub have a preset with its weights, if they do: the newest version."""
    scheme, _, address = preset.rpartition("://")
    if scheme == "hf":
        chosen = os.environ.get("HF_HUB_CACHE")
        hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
        repository = (Path(chosen) if chosen else hub) / f"models--{address.replace('/', '--')}"
        newest = repository / "refs" / "main"
        snapshot = repository / "snapshots" / (newest.read_text().strip() if newest.is_file() else "none")
        return snapshot if _is_whole(snapshot, lambda name: (snapshot / name).is_file()) else None
    folder = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub") / "models"
    # A preset that KerasHub knows by name is a variation of that name.
    place = glob.escape(address) if scheme == "kaggle" else f"*/*/keras/{glob.escape(address)}"
    found = sorted(folder.glob(place if place.count("/") == 4 else f"{place}/*/"), key=_version)
    return next((each for each in reversed(found) if _is_whole(each, _kaggle_files(each))), None)


def _version(folder: Path) -> int:
    return int(folder.name) if folder.name.isdecimal() else -1


def _kaggle_files(folder: Path) -> Callable[[str], bool]:
    """Whether kagglehub has all of a file of a preset: it marks beside the folder which ones it has."""
    marks = folder.parent / ".complete" / folder.name
    return lambda name: (folder / name).is_file() and (marks / f"{name}.complete").is_file()


def _is_whole(folder: Path, has: Callable[[str], bool]) -> bool:
    """Whether the folder of a preset holds its config and all files of its weights."""
    if not has("config.json"):
        return False
    if has("model.weights.h5") or has("model.safetensors"):
        return True
    index = next(filter(has, ("model.weights.json", "model.safetensors.index.json")), None)
    if index is None:
        return False
    try:
        values = json.loads((folder / index).read_bytes())["weight_map"].values()
        parts = {name for each in values for name in (each if isinstance(each, list) else [each])}
        return all(has(name) for name in parts)
    except (ValueError, LookupError, TypeError, AttributeError):  # it is no index
        return False


def own_saved_model(handle: str) -> Path | None:
    """Where tensorflow-hub has the SavedModel of a handle, if `TFHUB_CACHE_DIR` names a folder of its own."""
    chosen = os.environ.get("TFHUB_CACHE_DIR")
    folder = Path(chosen).expanduser() / _name_in_tensorflow_hub(handle) if chosen else None
    return folder if folder is not None and folder.is_dir() else None


def _name_in_tensorflow_hub(handle: str) -> str:
    return hashlib.sha1(handle.encode()).hexdigest()


def _slot(name: str, version: str) -> str:
    return f"{name[-80:]}-{hashlib.sha256(version.encode()).hexdigest()[:12]}"


def _application(entry: ZooEntry) -> str:
    return str(entry.constructor.arguments.get("application")) if entry.constructor else ""


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
