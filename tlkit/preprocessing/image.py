"""The one way from image bytes to model inputs, for training, predict and export alike."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import tensorflow as tf

from tlkit.config.augment import resolve_augment
from tlkit.config.preprocessing import PreprocessingConfig
from tlkit.errors import ConfigError
from tlkit.preprocessing.augment import Augment, make_augment
from tlkit.preprocessing.decoding import decode_picture
from tlkit.preprocessing.jpeg import Spare
from tlkit.preprocessing.resizing import resize_to_square, times_larger
from tlkit.zoo.entry import ImageInput, Resizing, Scaling

_LARGEST_ZOOM = 8
_SMALLEST_DEFAULT = 64


@dataclass(frozen=True)
class ImagePreprocessing:
    """Image bytes → sample (uint8 RGB, H = W = `image_size`) → model inputs (float32), all in the graph.

    `image_size` in pixels; `resize` is `stretch`, `crop` or `pad`; `scaling` holds mean, std and channel
    order in units of 0–255; `augmentation` changes training samples; `resizing` says how pixels are merged
    and what is beside a padded picture.
    """

    image_size: int
    resize: str
    scaling: Scaling
    augmentation: Augment | None = None
    resizing: Resizing = field(default_factory=Resizing)

    def decode(self, raw: tf.Tensor) -> tf.Tensor:
        """A scalar string, the bytes of one file, as a sample: uint8 (H, W, 3).

        A JPEG that is much larger than the sample is decoded at a half or a quarter of its sides.

        Errors: `tf.errors.InvalidArgumentError` for bytes that are not a whole picture of an accepted kind.
        """
        return _traced_decode(replace(self, augmentation=None))(raw)

    def decode_batch(self, raw: tf.Tensor) -> tf.Tensor:
        """Strings (N,) as samples: uint8 (N, H, W, 3)."""
        return self._for_each(self.decode, raw)

    def resize_batch(self, pictures: tf.Tensor) -> tf.Tensor:
        """Decoded RGB pictures, uint8 (N, h, w, 3) of one size, as samples: uint8 (N, H, W, 3)."""
        return self._for_each(self._resize, pictures)

    def augment(self, samples: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Samples, uint8 (N, H, W, 3), changed at random for training; `seeds`, int64 (N, 2), decide how."""
        return samples if self.augmentation is None else self.augmentation(samples, seeds)

    def encode(self, samples: tf.Tensor) -> tf.Tensor:
        """Samples, uint8 (N, H, W, 3), as model inputs: float32 (N, H, W, 3)."""
        values = tf.cast(samples, tf.float32)
        if self.scaling.order == "bgr":  # mean and std are in the order that the backbone sees
            values = tf.reverse(values, axis=[-1])
        return (values - tf.constant(self.scaling.mean)) / tf.constant(self.scaling.std)

    def from_raw(self, raw: tf.Tensor) -> tf.Tensor:
        """Strings (N,) as model inputs: float32 (N, H, W, 3)."""
        return self.encode(self.decode_batch(raw))

    def _decode(self, raw: tf.Tensor) -> tf.Tensor:
        return self._resize(decode_picture(raw, self._spare))

    def _resize(self, picture: tf.Tensor) -> tf.Tensor:
        return resize_to_square(picture, self.image_size, self._resizing)

    @property
    def _resizing(self) -> Resizing:
        return self.resizing.model_copy(update={"fit": self.resize})

    @property
    def _spare(self) -> Spare | None:
        if not self._resizing.antialias:
            return None  # which pixels it takes is up to the size of the picture
        return lambda sides: times_larger(sides, self.image_size, self._resizing)

    def _for_each(self, make_sample: Callable[[tf.Tensor], tf.Tensor], batch: tf.Tensor) -> tf.Tensor:
        shape = (self.image_size, self.image_size, 3)
        return tf.map_fn(make_sample, batch, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


@functools.lru_cache(maxsize=4)
def _traced_decode(preprocessing: ImagePreprocessing) -> Callable[[tf.Tensor], tf.Tensor]:
    """One trace, which takes a second, for all graphs that decode: reading, each stage, the export."""
    spec = tf.TensorSpec((), tf.string)
    # There is no Python control flow over tensors in it: converting it would only make tracing slower.
    traced: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        preprocessing._decode, input_signature=[spec], autograph=False
    )
    return traced


def make_preprocessing(image_input: ImageInput, spec: PreprocessingConfig) -> ImagePreprocessing:
    """The preprocessing for a backbone's `entry.input` under the `preprocessing` part of a config.

    Raises ConfigError where the image size is not one that the backbone can take.
    """
    size = spec.image_size or image_input.image_size
    if size < image_input.min_image_size:
        raise ConfigError(
            f"preprocessing.image_size: {size} pixels is too small for this backbone, "
            f"which takes {image_input.min_image_size} or more."
        )
    if size % image_input.multiple_of:
        below = size // image_input.multiple_of * image_input.multiple_of
        raise ConfigError(
            f"preprocessing.image_size: this backbone takes multiples of {image_input.multiple_of} pixels, "
            f"received {size}. Use {max(below, image_input.min_image_size)} or "
            f"{below + image_input.multiple_of}."
        )
    augmentations = resolve_augment(spec.augment)
    augmentation = make_augment(augmentations) if augmentations else None
    return ImagePreprocessing(
        size,
        spec.resize or image_input.resizing.fit,
        image_input.scaling,
        augmentation,
        image_input.resizing,
    )


def default_image_size(image_input: ImageInput, longest_side: int | None) -> int:
    """The backbone's own size, or less where that would blow the pictures up more than 8 times.

    `longest_side` is that of the pictures, in pixels; None where it is not known.
    """
    if longest_side is None:
        return image_input.image_size
    useful = math.ceil(_LARGEST_ZOOM * longest_side / 32) * 32
    least = max(useful, _SMALLEST_DEFAULT, image_input.min_image_size)
    return min(image_input.image_size, math.ceil(least / image_input.multiple_of) * image_input.multiple_of)
