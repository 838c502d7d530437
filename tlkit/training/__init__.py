"""Freezing, compiling, fitting, and the proof of what was frozen."""

from tlkit.training.batch_size import choose_batch_size
from tlkit.training.freeze import apply_freeze
from tlkit.training.stages import Trainable, train_stages
from tlkit.training.timing import time_step

__all__ = ["Trainable", "apply_freeze", "choose_batch_size", "time_step", "train_stages"]
