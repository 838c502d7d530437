"""Which backbones are ranked: those that were asked for, or all that can be had without asking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from tlkit import zoo
from tlkit.backbones import load
from tlkit.config import RunConfig
from tlkit.errors import ConfigError
from tlkit.preprocessing import default_image_size
from tlkit.results import RunFolder
from tlkit.workflows.fits import EXAMPLES, require_fit
from tlkit.workflows.prepare import find_entry
from tlkit.zoo import ImageInput, ZooEntry
from tlkit.zoo.cache import offline
from tlkit.zoo.presence import kept_at
from tlkit.zoo.source import FileSource, NoSource, WheelSource


def chosen_entries(
    config: RunConfig,
    modality: str,
    chosen: Sequence[str | Path | keras.Model],
    folder: Path,
    longest: int | None,
) -> tuple[ZooEntry, ...]:
    """The entries of these backbones, each once.

    Args:
        config: That of a run.
        modality: What the data holds.
        chosen: Names as of `finetune`, and Keras models.
        folder: Where Keras models are written.
        longest: The longest side of the pictures, in pixels.

    Raises:
        UnknownNameError: There is no such backbone.
        ConfigError: One is for other examples, has no pretrained weights, or is an earlier run.
    """
    entries: dict[str, ZooEntry] = {}
    for given in chosen:
        if isinstance(given, keras.Model):
            entry = _written(given, config, longest, folder / f"{len(entries)}.keras")
        else:
            entry = _named(str(given), config)
        if entry.modality != modality:
            raise ConfigError(
                f"The data holds {EXAMPLES[modality]}, but {entry.name!r} takes "
                f"{EXAMPLES.get(entry.modality, 'neither pictures nor texts')}. See: tlkit zoo list"
            )
        if isinstance(entry.source, NoSource):
            raise ConfigError(f"{entry.name!r} has no pretrained weights, so there are no features to rank.")
        require_fit(config.model_copy(update={"backbone": entry.name}), entry, is_run=False)
        if entry in entries.values():
            continue
        if entry.name in entries:  # two models of one name
            entry = entry.model_copy(update={"name": f"{entry.name}-{len(entries) + 1}"})
        entries[entry.name] = entry
    if not entries:
        raise ConfigError("No backbone was named. See: tlkit zoo list")
    return tuple(entries.values())


def default_entries(config: RunConfig, modality: str) -> tuple[tuple[ZooEntry, ...], dict[str, str]]:
    """The entries of a modality that are verified and at hand, and why each of the others is left out.

    At hand are weights on this machine, and those that come inside Python packages where a download is
    allowed.
    """
    left_out = {}
    for entry in zoo.entries():
        if entry.modality == modality and (reason := _why_not(entry)):
            left_out[entry.name] = reason
    entries = tuple(e for e in zoo.entries() if e.modality == modality and e.name not in left_out)
    if not entries:
        raise ConfigError(
            f"No verified backbone for {EXAMPLES[modality]} is at hand. Name some with --backbones; "
            "see: tlkit zoo list"
        )
    for entry in entries:
        require_fit(config.model_copy(update={"backbone": entry.name}), entry, is_run=False)
    return entries, left_out


def _named(name: str, config: RunConfig) -> ZooEntry:
    if RunFolder(Path(name)).state.exists():
        raise ConfigError(
            f"{name!r} is an earlier run: it has seen its own examples, so its rank would say nothing. "
            "Compare runs by their metrics: tlkit runs"
        )
    return find_entry(config.model_copy(update={"backbone": name}))


def _written(model: keras.Model, config: RunConfig, longest: int | None, path: Path) -> ZooEntry:
    """The entry of a Keras model, as a file that another process can load."""
    spec, size = config.preprocessing, config.preprocessing.image_size
    takes = load(model, image_size=size, scaling=spec.scaling).entry.input
    assert isinstance(takes, ImageInput)
    size = default_image_size(takes, longest) if size is None else size
    backbone = load(model, image_size=size, scaling=spec.scaling)
    backbone.model.save(path)
    return backbone.entry.model_copy(update={"source": FileSource(kind="file", path=str(path))})


def _why_not(entry: ZooEntry) -> str | None:
    if isinstance(entry.source, NoSource):
        return "no pretrained weights"
    if not entry.verified:
        return "not verified"
    if kept_at(entry) is not None:
        return None
    if not isinstance(entry.source, WheelSource):
        return "not on this machine"
    return "not on this machine, and TLKIT_OFFLINE forbids downloads" if offline() else None
