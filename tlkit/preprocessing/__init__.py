"""From raw bytes to model inputs: one graph for training, prediction and export."""

from tlkit.preprocessing.arrays import to_rgb
from tlkit.preprocessing.checking import sniff, why_refused
from tlkit.preprocessing.image import ImagePreprocessing, make_preprocessing

__all__ = ["ImagePreprocessing", "make_preprocessing", "sniff", "to_rgb", "why_refused"]
