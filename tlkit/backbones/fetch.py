"""Fetch everything that loading a backbone needs, whoever downloads it."""

from __future__ import annotations

from pathlib import Path

from tlkit import zoo
from tlkit.backbones.keras_applications import SIZES_WITH_WEIGHTS
from tlkit.backbones.keras_hub_fetch import fetch_preset
from tlkit.backbones.load import load
from tlkit.backbones.saved_model_fetch import fetch_saved_model
from tlkit.zoo.cache import Progress
from tlkit.zoo.entry import ImageInput, ZooEntry
from tlkit.zoo.libraries import preprocessing_of
from tlkit.zoo.saved_model_files import is_saved_model
from tlkit.zoo.source import KerasHubSource, KerasSource


def fetch_backbone(entry: ZooEntry | str, progress: Progress | None = None) -> Path:
    """The weights of a zoo entry, or of the one with that name, in the cache folder, with all that goes with
    them: afterwards it loads without a network.

    What Keras, KerasHub and tensorflow-hub download, they download; of their own cache folders is taken what
    is there. Gives the file or folder, of several the first. Raises as `load` does.
    """
    entry = zoo.get(entry) if isinstance(entry, str) else entry
    before = preprocessing_of(entry)
    if before is not None:
        fetch_saved_model(before, progress)
    if is_saved_model(entry):
        return fetch_saved_model(entry, progress)
    if isinstance(entry.source, KerasHubSource):
        return fetch_preset(entry.source.preset, progress)
    if isinstance(entry.source, KerasSource) and isinstance(entry.input, ImageInput):
        # Which file it is, Keras says only when it builds the model.
        application = entry.constructor.arguments.get("application") if entry.constructor else None
        for size in SIZES_WITH_WEIGHTS.get(str(application), (entry.input.image_size,)):
            load(entry, image_size=size)
    return zoo.fetch_weights(entry, progress)
