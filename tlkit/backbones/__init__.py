"""Backbones: pretrained models without their heads."""

from tlkit.backbones.backbone import Backbone
from tlkit.backbones.keras_hub_import import import_keras_hub
from tlkit.backbones.load import load, load_classifier, source_folder

__all__ = ["Backbone", "import_keras_hub", "load", "load_classifier", "source_folder"]
