"""The zoo: which pretrained backbones and sample data there are, and how to get their files."""

from tlkit.zoo.cache import home
from tlkit.zoo.entry import ImageInput, TextInput, ZooEntry
from tlkit.zoo.fetch import fetch_weights
from tlkit.zoo.hugging_face import entry_of_folder, is_hugging_face_folder
from tlkit.zoo.private_copy import open_copy, open_weights
from tlkit.zoo.registry import entries, get, search
from tlkit.zoo.sample import SampleEntry, fetch_sample, get_sample, samples
from tlkit.zoo.verify import verify

__all__ = [
    "ImageInput",
    "SampleEntry",
    "TextInput",
    "ZooEntry",
    "entries",
    "entry_of_folder",
    "fetch_sample",
    "fetch_weights",
    "get",
    "get_sample",
    "home",
    "is_hugging_face_folder",
    "open_copy",
    "open_weights",
    "samples",
    "search",
    "verify",
]
