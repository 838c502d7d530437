"""The training examples that backbones are ranked by: drawn once, the same for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from tlkit.config import PreprocessingConfig, RunConfig
from tlkit.data import load, modality_of, read_texts
from tlkit.data.records import Records
from tlkit.data.sources import read_rows
from tlkit.errors import DataError
from tlkit.preprocessing import make_cleaner, make_preprocessing, to_rgb
from tlkit.progress import track
from tlkit.zoo import ImageInput

FEWEST = 20  # of examples; fewer tell backbones apart by chance
_LOOKED_AT = 32  # pixels of a side: enough to know whether a picture can be decoded


@dataclass(frozen=True)
class RankExamples:
    """Examples of the training split, as their source holds them.

    `inputs` are texts (normalised), paths of pictures, pictures (arrays), or `Records`. `targets` are as in
    `Examples`. `training_examples` is how many the split has.
    """

    modality: Literal["image", "text"]
    inputs: Sequence[Any] | Records
    targets: np.ndarray
    classes: tuple[str, ...] | None
    training_examples: int
    name: str

    def __len__(self) -> int:
        return len(self.inputs)


def draw_examples(config: RunConfig, most: int, data: Any = None) -> RankExamples:
    """Up to `most` examples of the training split that a run with this config has, drawn by its seed.

    The draw is stratified by label, combination of labels, or number. Copies are left out: they would be each
    other's nearest neighbours. Nothing of validation or test is looked at, but for whether it can be read.

    Raises:
        DataError: There are too few, and what reading and splitting the data raises.
    """
    source = config.data.source if data is None else data
    is_text = modality_of(source, config.data) == "text"
    return (_texts if is_text else _pictures)(config, source, most)


def stratified_rows(targets: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Row numbers, ascending, of at most `most` examples, with the shares of the targets of all of them.

    Every so-manieth row of those in order of their target, in an order within equal targets that `seed`
    draws: each class is there by its share, up or down to a whole example, and so is each range of numbers.
    """
    count = len(targets)
    if count <= most:
        return np.arange(count)
    rng = np.random.default_rng(seed)
    mixed = rng.permutation(count)
    ordered = mixed[np.argsort(_sort_keys(targets)[mixed], kind="stable")]
    places = ((np.arange(most) + rng.random()) * (count / most)).astype(np.intp)
    return np.sort(ordered[places])


def write_pictures(pictures: Sequence[Any] | Records, folder: Path) -> list[str]:
    """Paths of files that decode to these pictures, bit by bit: as they are, or as PNG, which is lossless."""
    folder.mkdir()
    paths = []
    for number in track(range(len(pictures)), "Writing pictures", len(pictures)):
        paths.append(str(folder / f"{number}.png"))
        if isinstance(pictures, Records):
            Path(paths[-1]).write_bytes(pictures.read(number))  # whatever kind it is: its bytes say so
            continue
        Image.fromarray(to_rgb(np.asarray(pictures[number]))).save(paths[-1], compress_level=1)
    return paths


def _sort_keys(targets: np.ndarray) -> np.ndarray:
    if targets.ndim == 1:
        return targets
    is_labels = np.isin(targets, (0, 1)).all()
    return np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1) if is_labels else targets[:, 0]


def _pictures(config: RunConfig, source: Any, most: int) -> RankExamples:
    spec = PreprocessingConfig(image_size=_LOOKED_AT, resize=config.preprocessing.resize, augment="none")
    dataset = load(
        config.data,
        config.task,
        seed=config.seed,
        preprocessing=make_preprocessing(ImageInput(image_size=_LOOKED_AT), spec),
        source=source,
    )
    rows = read_rows(source, config.data)
    held = next(held for held in (rows.records, rows.paths, rows.pictures) if held is not None)
    targets = dataset.splits["train"].targets
    training, drawn = _draw(dataset.manifest.table, targets, dataset.name, most, config.seed)
    chosen = training[drawn]
    return RankExamples(
        modality="image",
        inputs=held[chosen] if isinstance(held, Records) else [held[row] for row in chosen],
        targets=targets[drawn],
        classes=dataset.manifest.classes,
        training_examples=len(training),
        name=dataset.name,
    )


def _texts(config: RunConfig, source: Any, most: int) -> RankExamples:
    spec = config.preprocessing
    texts = read_texts(
        config.data,
        config.task,
        seed=config.seed,
        normalization=spec.normalize,
        clean=make_cleaner(spec.nltk) if spec.nltk else None,
        source=source,
    )
    targets = texts.labels.targets[texts.splits == "train"]
    training, drawn = _draw(texts.table, targets, texts.rows.name, most, config.seed)
    return RankExamples(
        modality="text",
        inputs=list(texts.samples(training[drawn])),
        targets=targets[drawn],
        classes=texts.labels.classes,
        training_examples=len(training),
        name=texts.rows.name,
    )


def _draw(table: Any, targets: np.ndarray, name: str, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the manifest's `table` for training, whose `targets` these are, and which of these are
    drawn; none that is a copy."""
    training = np.flatnonzero(table["split"].to_numpy() == "train")
    is_copy = table["flags"].iloc[training].astype(str).str.startswith("duplicate").to_numpy()
    first = np.flatnonzero(~is_copy)
    if len(first) < FEWEST:
        raise DataError(
            f"{name}: {len(first)} training examples (without copies) are too few to rank "
            f"backbones: {FEWEST} or more."
        )
    return training, first[stratified_rows(targets[first], most, seed)]
