"""The features that a run has left on the disk, for measuring its model again."""

from __future__ import annotations

from collections.abc import Mapping

from tlkit.backbones import Backbone
from tlkit.data import Examples
from tlkit.freezing import group_layers
from tlkit.plans import Stage
from tlkit.preprocessing.views import plain_view
from tlkit.training import Features
from tlkit.training.cache.boundary import divide
from tlkit.training.cache.choice import Wanted, find_stored
from tlkit.training.cache.stage import KEPT
from tlkit.training.freeze import apply_freeze
from tlkit.workflows.run import Run


def stored_features(run: Run, examples: Examples, hashes: Mapping[str, str]) -> Features | None:
    """The features that the last stage of a run stored, where all of these examples are among them.

    The key is computed anew from the model as it is: one that has changed since finds nothing.

    Args:
        run: Complete, or interrupted.
        examples: To be measured.
        hashes: Those of the examples' content, by id.

    Returns:
        None where the last stage stored nothing on the disk, or it is gone. `table.leave()` at the end.
    """
    if not run.folder.is_complete:
        return None
    last = run.result.stages[-1]
    cache = last.cache or {}
    if cache.get("mode") != "disk" or last.adapters is not None:  # adapters are merged by now
        return None
    groups = group_layers(Backbone(run.entry, run.backbone_model, {}))
    n_trained = len({group.name for group in groups} & set(last.trained_groups))
    stage = Stage(last.name, n_trained or "head", 1, last.learning_rate)
    apply_freeze(run.model, groups, stage, run.config.batch_norm)
    parts = divide(run.model, groups, KEPT)
    if parts is None:
        return None
    wanted = Wanted(
        parts=parts,
        preprocessing=run.preprocessing,
        splits={"test": examples},
        views={"test": plain_view()},
        hashes=hashes,
        backbone=run.entry.name,
    )
    return find_stored(wanted, cache["storage"])
