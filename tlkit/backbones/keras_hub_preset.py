"""KerasHub's presets as backbones: their weights, their preprocessing of pictures, their vocabularies."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tlkit.backbones.keras_hub_check import check_inside
from tlkit.backbones.keras_hub_errors import preset_errors
from tlkit.backbones.keras_hub_fetch import fetch_preset, image_converter, open_preset
from tlkit.backbones.keras_hub_image import backbone_class, load_image_backbone
from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.backbones.keras_hub_text import adapt, keras_hub_class
from tlkit.errors import ConfigError
from tlkit.zoo.cache import home, keep
from tlkit.zoo.entry import Scaling
from tlkit.zoo.hashing import hash_of_file, hash_of_list, names_in

_TOKENIZER_FILES = (".json", ".txt", ".model")


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
    with open_preset(preset) as folder, preset_errors(preset):
        whole = keras_hub_class(family).from_preset(folder)
    return adapt(
        whole,
        family,
        pooler=pooler,
        activation=activation,
        layer_norm_epsilon=layer_norm_epsilon,
        keep_weights=True,
    )


def load_image_preset(
    preset: str, image_size: int, *, scaling: Scaling, backbone: str, **arguments: Any
) -> keras.Model:
    """The image backbone of a preset with its weights; otherwise as `build_keras_hub_image`.

    Raises what `load_preset` raises, and ConfigError where the preset has another architecture than the
    arguments say, or its own preprocessing another scaling than `scaling`.
    """
    with open_preset(preset) as folder, preset_errors(preset):
        converter = image_converter(folder)
        make = partial(backbone_class(backbone).from_preset, folder)
        model = load_image_backbone(make, image_size, backbone=backbone, **arguments)
    theirs = None if converter is None else scaling_of(converter)
    if theirs is not None and not _agree(theirs, scaling):
        raise ConfigError(
            f"The preset {preset} scales pictures with mean {list(theirs.mean)} and std {list(theirs.std)}, "
            f"its zoo entry says {list(scaling.mean)} and {list(scaling.std)}. Correct the entry, or make "
            "one: tlkit zoo add"
        )
    return model


def scaling_of(converter: Any) -> Scaling:
    """KerasHub's `x · scale + offset` as `(x − mean) / std`. Raises ConfigError where there is no such."""
    scale, offset = (
        [float(value) for value in np.broadcast_to(default if given is None else given, 3)]
        for given, default in ((converter.scale, 1.0), (converter.offset, 0.0))
    )
    if min(scale) <= 0:
        raise ConfigError(f"The preset scales pictures by {scale}: tlkit needs numbers above 0")
    mean = tuple(-shift / factor + 0.0 for factor, shift in zip(scale, offset, strict=True))
    return Scaling.model_validate({"mean": mean, "std": tuple(1 / factor for factor in scale)})


def _agree(one: Scaling, other: Scaling) -> bool:
    ours, theirs = ([*scaling.mean, *scaling.std] for scaling in (one, other))
    return bool(np.allclose(ours, theirs, rtol=1e-3, atol=1e-2))


def preset_vocabulary(preset: str, files: tuple[str, ...]) -> Path:
    """The folder with a preset's vocabulary: its own where it has the files as they are, else one in the
    cache folder.

    What is there is checked by the hash that it had when it was put there, and made anew where it has
    another. A folder of the user's is looked at again each time. Raises what `load_preset` raises, and
    StorageError where the cache folder cannot be written.
    """
    local = fetch_preset(preset)
    own = local / "assets" / "tokenizer"
    if all((own / name).is_file() for name in files):
        for name in files:
            check_inside(local, f"assets/tokenizer/{name}", own / name)
        return own
    kept = f"{local.name}-{_hash_of_vocabulary(local)}"

    def make(scratch: Path) -> Path:
        with preset_errors(preset):
            tokenizer = import_keras_hub().models.Tokenizer.from_preset(str(local))
        (scratch / "vocabulary").mkdir()
        tokenizer.save_assets(str(scratch / "vocabulary"))
        return scratch / "vocabulary"

    return keep(home() / "vocabularies" / kept / "vocabulary", None, make)


def _hash_of_vocabulary(folder: Path) -> str:
    """The hash of everything in the folder of a preset that a tokenizer may be made of."""
    names = [name for name in names_in(folder) if name.endswith(_TOKENIZER_FILES)]
    return hash_of_list((name, hash_of_file(folder / name)) for name in names)
