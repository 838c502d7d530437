"""JPEG at reduced scale: never less than twice what is needed, near to the whole picture, refused alike."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image
from test_preprocessing_formats import exif

from tlkit.preprocessing import ImagePreprocessing, why_refused
from tlkit.preprocessing.decoding import decode_picture
from tlkit.preprocessing.jpeg import MARGIN
from tlkit.preprocessing.resizing import resize_to_square
from tlkit.zoo.entry import Resizing, Scaling

SIZE = 48
ORIENTED = b"Exif\0\0" + exif(6)


@pytest.fixture(autouse=True)
def _seeded_keras() -> None:
    """Nothing here draws from Keras, and seeding it makes TensorFlow build the decoder again in each test."""


def jpeg(mode: str = "RGB", sides: tuple[int, int] = (512, 400), **options: Any) -> bytes:
    photograph = Image.fromarray(skimage.data.astronaut()).resize(sides, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    photograph.convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@functools.cache
def _decoder(fit: str, antialias: bool = True) -> Any:
    resizing = Resizing(antialias=antialias)
    ours = ImagePreprocessing(SIZE, fit, Scaling(), resizing=resizing)
    return tf.function(ours.decode, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


@functools.cache
def _whole_decoder() -> Any:
    return tf.function(decode_picture, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def whole(raw: bytes, fit: str, antialias: bool = True) -> np.ndarray:
    """What becomes of the whole picture."""
    resizing = Resizing(fit=fit, antialias=antialias)  # type: ignore[arg-type]
    return np.asarray(resize_to_square(_whole_decoder()(raw), SIZE, resizing)).astype(int)


def sample(raw: bytes, fit: str = "stretch", antialias: bool = True) -> np.ndarray:
    return np.asarray(_decoder(fit, antialias)(raw)).astype(int)


FILES = {
    "colour": jpeg(),
    "a quarter": jpeg(sides=(1280, 1000)),
    "progressive": jpeg(progressive=True),
    "grey": jpeg("L"),
    "CMYK": jpeg("CMYK"),
    "full chroma": jpeg(subsampling=0),
    "turned": jpeg(exif=ORIENTED),
    "not a quarter": jpeg(sides=(514, 402)),
    "very wide": jpeg(sides=(1500, 200)),
}


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("name", FILES)
def test_a_large_jpeg_comes_out_near_the_whole_picture(name: str, fit: str) -> None:
    difference = np.abs(sample(FILES[name], fit) - whole(FILES[name], fit))
    assert 0 < difference.mean() < 3  # grey levels; reduced, and not by too much
    assert np.percentile(difference, 99) < 25


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((95, 300), (95, 300)),
        ((192, 300), (96, 150)),
        ((384, 388), (96, 97)),
        ((386, 388), (193, 194)),
        ((385, 388), (385, 388)),
    ],
)
def test_what_is_decoded_is_twice_as_large_as_needed_and_ends_with_whole_pixels(
    sides: tuple[int, int], expected: tuple[int, int]
) -> None:
    def spare(both: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reduce_min(both), tf.float64) / SIZE

    height, width, _ = decode_picture(tf.constant(jpeg(sides=sides[::-1])), spare).shape
    assert (height, width) == expected
    assert min(height, width) >= MARGIN * SIZE or (height, width) == sides


def test_a_jpeg_without_twice_as_much_to_spare_is_decoded_whole() -> None:
    raw = jpeg(sides=(250, 4 * SIZE - 1))
    assert np.array_equal(sample(raw), whole(raw, "stretch"))


def test_without_antialiasing_the_whole_picture_decides() -> None:
    raw = FILES["colour"]
    assert np.array_equal(sample(raw, antialias=False), whole(raw, "stretch", antialias=False))


@pytest.mark.parametrize("name", ["colour", "a quarter", "progressive"])
def test_a_truncated_large_jpeg_is_refused_wherever_it_ends(name: str) -> None:
    raw = FILES[name]
    for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99):
        part = raw[: int(len(raw) * share)]
        with pytest.raises(tf.errors.InvalidArgumentError):
            sample(part)
        assert why_refused(part)


def test_an_exported_model_decodes_as_training_does(tmp_path: Path) -> None:
    ours = ImagePreprocessing(SIZE, "stretch", Scaling())
    module = tf.Module()
    module.serve = tf.function(ours.from_raw, input_signature=[tf.TensorSpec((None,), tf.string)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    served = tf.saved_model.load(str(tmp_path / "model")).serve(tf.constant(list(FILES.values())))
    assert np.array_equal(served, np.stack([sample(raw) for raw in FILES.values()]))
