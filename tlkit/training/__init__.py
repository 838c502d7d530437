"""Freezing, compiling, fitting, and the proof of what was frozen."""

from tlkit.training.adapters import Adapters, adapted
from tlkit.training.batch_size import choose_batch_size, require_examples
from tlkit.training.cache.choice import CacheChoice
from tlkit.training.cache.features import Features
from tlkit.training.cache.stage import features_of_split, require_room_for
from tlkit.training.compute.candidates import require_compilable
from tlkit.training.compute.choice import ComputeChoice
from tlkit.training.freeze import apply_freeze, trained_groups
from tlkit.training.optimizing.accumulation import require_whole_update
from tlkit.training.resuming.saver import Saving, require_own_save
from tlkit.training.stages import Trained, train_stages
from tlkit.training.timing import StageTime, time_stage
from tlkit.training.trainable import Trainable

__all__ = [
    "Adapters",
    "CacheChoice",
    "ComputeChoice",
    "Features",
    "Saving",
    "StageTime",
    "Trainable",
    "Trained",
    "adapted",
    "apply_freeze",
    "choose_batch_size",
    "features_of_split",
    "require_compilable",
    "require_examples",
    "require_own_save",
    "require_room_for",
    "require_whole_update",
    "time_stage",
    "train_stages",
    "trained_groups",
]
