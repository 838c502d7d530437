"""The zoo: which pretrained backbones and sample data there are, and how to get their files."""

from tlkit.zoo.cache import home
from tlkit.zoo.entry import ImageInput, TextInput, ZooEntry
from tlkit.zoo.export import export_to
from tlkit.zoo.fetch import fetch_weights
from tlkit.zoo.hashing import hash_of
from tlkit.zoo.hugging_face import entry_of_folder, is_hugging_face_folder
from tlkit.zoo.private_copy import open_copy, open_weights
from tlkit.zoo.pruning import Pruned, prune
from tlkit.zoo.registry import entries, get, search
from tlkit.zoo.sample import SampleEntry, fetch_sample, get_sample, samples
from tlkit.zoo.verify import verify

__all__ = [
    "ImageInput",
    "Pruned",
    "SampleEntry",
    "TextInput",
    "ZooEntry",
    "entries",
    "entry_of_folder",
    "export_to",
    "fetch_sample",
    "fetch_weights",
    "get",
    "get_sample",
    "hash_of",
    "home",
    "is_hugging_face_folder",
    "open_copy",
    "open_weights",
    "prune",
    "samples",
    "search",
    "verify",
]
