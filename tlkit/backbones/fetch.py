"""Fetch everything that loading a backbone needs, whoever downloads it."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from tlkit import zoo
from tlkit.backbones.keras_applications import SIZES_WITH_WEIGHTS, NotHereError
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
    them: afterwards it loads without a network. Where downloads are forbidden, of what Keras has for several
    sizes of pictures only the entry's own must be there already; which others are missing is told.

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
        _load_every_size(entry, entry.input.image_size, progress)
    return zoo.fetch_weights(entry, progress)


def _load_every_size(entry: ZooEntry, own_size: int, progress: Progress | None) -> None:
    """Have Keras put every file of an entry's weights into the cache folder; which ones there are, Keras says
    only when it builds the model. Without a network those for the entry's own size are enough."""
    application = entry.constructor.arguments.get("application") if entry.constructor else None
    missing = []
    for size in SIZES_WITH_WEIGHTS.get(str(application), (own_size,)):
        try:
            load(entry, image_size=size)
        except NotHereError:
            if size == own_size:
                raise
            missing.append(str(size))
    if missing:
        tell = progress or functools.partial(print, file=sys.stderr, flush=True)
        tell(
            f"{entry.name}: its weights for pictures of {', '.join(missing)} pixels are not on this machine, "
            "and TLKIT_OFFLINE forbids downloads"
        )
