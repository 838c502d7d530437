"""Configuration as data: frozen, validated once, with every default in one place."""

from tlkit.config.architecture import ArchitectureConfig
from tlkit.config.cache import CacheConfig
from tlkit.config.data import Columns, DataConfig, Split
from tlkit.config.head import HeadConfig, Objective, Task
from tlkit.config.load import LoadedConfig, dump, flatten, load_config, read_config, validate
from tlkit.config.plan import PLANS, PlanSpec, StageSpec
from tlkit.config.preprocessing import PreprocessingConfig
from tlkit.config.run import FixedPrecision, Precision, RunConfig, Xla
from tlkit.config.training import MixConfig, TrainingConfig
from tlkit.config.yaml_file import read_yaml, to_yaml

__all__ = [
    "PLANS",
    "ArchitectureConfig",
    "CacheConfig",
    "Columns",
    "DataConfig",
    "FixedPrecision",
    "HeadConfig",
    "LoadedConfig",
    "MixConfig",
    "Objective",
    "PlanSpec",
    "Precision",
    "PreprocessingConfig",
    "RunConfig",
    "Split",
    "StageSpec",
    "Task",
    "TrainingConfig",
    "Xla",
    "dump",
    "flatten",
    "load_config",
    "read_config",
    "read_yaml",
    "to_yaml",
    "validate",
]
