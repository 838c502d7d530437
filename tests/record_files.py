"""Small files of records for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tlkit.data.record_writer import serialize

Example = Mapping[str, Any]


def examples_of(folder: Path, picture: str = "image", label: str = "label") -> list[dict[str, Any]]:
    """The pictures of class folders, in the order in which tlkit reads them."""
    paths = sorted(folder.rglob("*.png"))
    return [{picture: path.read_bytes(), label: path.parent.name} for path in paths]


def write_file(path: Path, examples: Sequence[Example], compression: str = "") -> Path:
    """One file of `tf.train.Example`s. `compression`: GZIP or ZLIB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for example in examples:
            writer.write(serialize(example))
    return path
