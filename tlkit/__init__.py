"""Fine-tune a pretrained backbone on your own images, and get a model that can be trusted and shipped.

Example:
    >>> import tlkit
    >>> run = tlkit.finetune(data="photos/", backbone="efficientnet_lite0")
    >>> run.metrics["accuracy"]
    >>> run.predict("x.jpg")
    >>> run.export("exported/1")

Names are imported at their first use, so that `import tlkit` stays quick and loads no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlkit import zoo
    from tlkit.backbones.load import load as load_backbone
    from tlkit.backbones.load import load_classifier
    from tlkit.config import RunConfig, load_config
    from tlkit.data import check as check_data
    from tlkit.data import load as load_data
    from tlkit.devices import make_strategy
    from tlkit.errors import (
        ConfigError,
        DataCheckError,
        DataError,
        ExportMismatch,
        FetchError,
        FrozenWeightsMoved,
        InternalError,
        Interrupted,
        StorageError,
        TlkitError,
        TrainingError,
        UnknownNameError,
    )
    from tlkit.freezing import group_layers
    from tlkit.heads import make_head
    from tlkit.model import build_model
    from tlkit.plans import make_plan
    from tlkit.preprocessing import make_preprocessing
    from tlkit.training import train_stages
    from tlkit.workflows import Run
    from tlkit.workflows import evaluate_run as evaluate
    from tlkit.workflows import export_run as export
    from tlkit.workflows import load_run as load
    from tlkit.workflows import predict_run as predict
    from tlkit.workflows.finetune import finetune
    from tlkit.workflows.lr_find import lr_find
    from tlkit.workflows.rank import rank_backbones

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DataCheckError",
    "DataError",
    "ExportMismatch",
    "FetchError",
    "FrozenWeightsMoved",
    "InternalError",
    "Interrupted",
    "Run",
    "RunConfig",
    "StorageError",
    "TlkitError",
    "TrainingError",
    "UnknownNameError",
    "__version__",
    "build_model",
    "check_data",
    "evaluate",
    "export",
    "finetune",
    "group_layers",
    "load",
    "load_backbone",
    "load_classifier",
    "load_config",
    "load_data",
    "lr_find",
    "make_head",
    "make_plan",
    "make_preprocessing",
    "make_strategy",
    "predict",
    "rank_backbones",
    "train_stages",
    "zoo",
]

# Where a name lives: `module`, or `module:name` where the module calls it otherwise.
_HOMES = {
    "ConfigError": "tlkit.errors",
    "DataCheckError": "tlkit.errors",
    "DataError": "tlkit.errors",
    "ExportMismatch": "tlkit.errors",
    "FetchError": "tlkit.errors",
    "FrozenWeightsMoved": "tlkit.errors",
    "InternalError": "tlkit.errors",
    "Interrupted": "tlkit.errors",
    "Run": "tlkit.workflows",
    "RunConfig": "tlkit.config",
    "StorageError": "tlkit.errors",
    "TlkitError": "tlkit.errors",
    "TrainingError": "tlkit.errors",
    "UnknownNameError": "tlkit.errors",
    "build_model": "tlkit.model",
    "check_data": "tlkit.data:check",
    "evaluate": "tlkit.workflows:evaluate_run",
    "export": "tlkit.workflows:export_run",
    "finetune": "tlkit.workflows",
    "group_layers": "tlkit.freezing",
    "load": "tlkit.workflows:load_run",
    "load_backbone": "tlkit.backbones:load",
    "load_classifier": "tlkit.backbones",
    "load_config": "tlkit.config",
    "load_data": "tlkit.data:load",
    "lr_find": "tlkit.workflows.lr_find",
    "make_head": "tlkit.heads",
    "make_plan": "tlkit.plans",
    "make_preprocessing": "tlkit.preprocessing",
    "make_strategy": "tlkit.devices",
    "predict": "tlkit.workflows:predict_run",
    "rank_backbones": "tlkit.workflows.rank",
    "train_stages": "tlkit.training",
}


def __getattr__(name: str) -> Any:
    if name == "zoo":
        return importlib.import_module("tlkit.zoo")
    if name not in _HOMES:
        raise AttributeError(f"module 'tlkit' has no attribute {name!r}")
    module, _, original = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), original or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
