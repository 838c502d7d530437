"""The arguments of a function in Python as what a run takes: a config, and objects that no config holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras

from tlkit.config import RunConfig, load_config, read_config
from tlkit.workflows.objects import PYTHON_MODEL, PythonObjects, as_augment, as_callbacks
from tlkit.workflows.run import Run

Backbone: TypeAlias = str | Path | Run | keras.Model | None


def read_arguments(
    data: Any,
    backbone: Backbone,
    config: str | Path | Mapping[str, Any] | RunConfig | None,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    augment: Any = None,
    head: Any = None,
    loss: Any = None,
    metrics: Any = None,
    callbacks: Any = (),
) -> tuple[RunConfig, PythonObjects]:
    """Put the arguments of `finetune` and its like together.

    Args:
        data, backbone, config, augment, head, loss, metrics, callbacks: As of `finetune`.
        options: Dotted path → value; None is left out.
        settings: Top-level key of the config → value; a mapping is merged with what `config` has there.

    Raises:
        ConfigError: Whatever is wrong with the config.
    """
    tree = read_config(config)
    objects = PythonObjects(
        data=None if data is None or isinstance(data, str | Path) else data,
        backbone=backbone if isinstance(backbone, keras.Model) else None,
        head=None if head is None or isinstance(head, Mapping) else head,
        loss=None if loss is None or isinstance(loss, str) else loss,
        metrics=metrics,
        augment=as_augment(augment),
        callbacks=as_callbacks(callbacks),
    )
    given = {
        "data.source": str(data) if isinstance(data, str | Path) else None,
        "backbone": _reference(backbone),
        "trust": True if isinstance(backbone, Run) and backbone.trust else None,
        "preprocessing.augment": None if objects.augment is not None else augment,
        "head.loss": loss if isinstance(loss, str) else None,
        **options,
    }
    for name, value in {**settings, **({"head": head} if isinstance(head, Mapping) else {})}.items():
        tree[name] = (
            {**tree.get(name, {}), **value}
            if isinstance(value, Mapping) and isinstance(tree.get(name), dict)
            else value
        )
    chosen = {dotted: value for dotted, value in given.items() if value is not None}
    return load_config(tree, options=chosen).config, objects


def own_classes(backbone: Backbone) -> dict[str, Any]:
    """The user's own Keras classes that an earlier run is made of."""
    return dict(backbone.custom_objects) if isinstance(backbone, Run) else {}


def _reference(backbone: Backbone) -> str | None:
    """What the config calls the backbone."""
    if isinstance(backbone, keras.Model):
        return f"{PYTHON_MODEL}{backbone.name}"
    return str(backbone.path if isinstance(backbone, Run) else backbone) if backbone is not None else None
