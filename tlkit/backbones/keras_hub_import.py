"""KerasHub, imported when a text backbone is needed: it takes seconds that pictures need not pay."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType


def import_keras_hub() -> ModuleType:
    """KerasHub, whose layers are registered with Keras by the import."""
    with warnings.catch_warnings():
        # Its download library wants a widget for its progress bars; tlkit has its own.
        warnings.filterwarnings("ignore", message="IProgress not found")
        return importlib.import_module("keras_hub")
