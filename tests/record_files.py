"""Small files of records for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tlkit.config import PreprocessingConfig
from tlkit.data.record_writer import serialize
from tlkit.preprocessing import ImagePreprocessing, make_preprocessing
from tlkit.zoo.entry import ImageInput

Example = Mapping[str, Any]


def examples_of(folder: Path, picture: str = "image", label: str = "label") -> list[dict[str, Any]]:
    """The pictures of class folders, in the order in which tlkit reads them."""
    paths = sorted(folder.rglob("*.png"))
    return [{picture: path.read_bytes(), label: path.parent.name} for path in paths]


def small_preprocessing(size: int) -> ImagePreprocessing:
    """Pictures of size × size, not augmented."""
    spec = PreprocessingConfig(image_size=size, augment="none")
    return make_preprocessing(ImageInput(image_size=size, min_image_size=8), spec)


def write_three_files(folder: Path, photos: Path) -> Path:
    """A folder with the 36 pictures of class folders in three files."""
    examples = examples_of(photos)
    for number in range(3):
        write_file(folder / f"all-0000{number}-of-00003.tfrecord", examples[12 * number : 12 * number + 12])
    return folder


def write_file(path: Path, examples: Sequence[Example], compression: str = "") -> Path:
    """One file of `tf.train.Example`s. `compression`: GZIP or ZLIB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for example in examples:
            writer.write(serialize(example))
    return path
