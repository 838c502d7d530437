"""Backbones: pretrained models without their heads."""

from tlkit.backbones.backbone import Backbone
from tlkit.backbones.load import load, load_classifier, source_folder

__all__ = ["Backbone", "load", "load_classifier", "source_folder"]
