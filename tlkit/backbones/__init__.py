"""Backbones: pretrained models without their heads."""

from tlkit.backbones.backbone import Backbone
from tlkit.backbones.describe import describe, entry_of, with_input
from tlkit.backbones.features import image_features
from tlkit.backbones.fetch import fetch_backbone
from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.backbones.load import load, load_classifier, source_folder
from tlkit.backbones.saved_model_layer import (
    SavedModelLayer,
    is_batch_norm,
    saved_model_layers,
    saved_model_objects,
)

__all__ = [
    "Backbone",
    "SavedModelLayer",
    "describe",
    "entry_of",
    "fetch_backbone",
    "image_features",
    "import_keras_hub",
    "is_batch_norm",
    "load",
    "load_classifier",
    "saved_model_layers",
    "saved_model_objects",
    "source_folder",
    "with_input",
]
