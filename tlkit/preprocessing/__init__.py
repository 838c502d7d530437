"""From raw bytes to model inputs: one graph for training, prediction and export."""

from tlkit.preprocessing.arrays import to_rgb
from tlkit.preprocessing.augment import from_callable, make_augment
from tlkit.preprocessing.checking import sniff, why_refused
from tlkit.preprocessing.image import ImagePreprocessing, default_image_size, make_preprocessing
from tlkit.preprocessing.nltk_steps import make_cleaner
from tlkit.preprocessing.text import (
    TextPreprocessing,
    bucket_sizes,
    default_sequence_length,
    make_text_preprocessing,
)
from tlkit.preprocessing.text_augment import make_text_augment
from tlkit.preprocessing.tokenizers import Tokenizer, learn_tokenizer, load_tokenizer, make_tokenizer

__all__ = [
    "ImagePreprocessing",
    "TextPreprocessing",
    "Tokenizer",
    "bucket_sizes",
    "default_image_size",
    "default_sequence_length",
    "from_callable",
    "learn_tokenizer",
    "load_tokenizer",
    "make_augment",
    "make_cleaner",
    "make_preprocessing",
    "make_text_augment",
    "make_text_preprocessing",
    "make_tokenizer",
    "sniff",
    "to_rgb",
    "why_refused",
]
