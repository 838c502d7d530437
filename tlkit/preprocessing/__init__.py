"""From raw bytes to model inputs: one graph for training, prediction and export."""

from tlkit.preprocessing.arrays import to_rgb
from tlkit.preprocessing.augment import from_callable, make_augment
from tlkit.preprocessing.checking import sniff, why_refused
from tlkit.preprocessing.image import ImagePreprocessing, default_image_size, make_preprocessing
from tlkit.preprocessing.text import (
    TextPreprocessing,
    bucket_sizes,
    default_sequence_length,
    make_text_preprocessing,
)

__all__ = [
    "ImagePreprocessing",
    "TextPreprocessing",
    "bucket_sizes",
    "default_image_size",
    "default_sequence_length",
    "from_callable",
    "make_augment",
    "make_preprocessing",
    "make_text_preprocessing",
    "sniff",
    "to_rgb",
    "why_refused",
]
