"""The features that a stage reads: where its model is divided, whether and where they are stored."""

from __future__ import annotations

from tlkit.features import DiskTable, make_room
from tlkit.plans import Stage
from tlkit.preprocessing import TextPreprocessing
from tlkit.preprocessing.views import plain_view
from tlkit.progress import make_console
from tlkit.training.cache.boundary import Parts, divide
from tlkit.training.cache.choice import CacheChoice, Wanted, choose_cache, off
from tlkit.training.cache.features import Features, Overflow
from tlkit.training.trainable import Trainable

KEPT = ("word_starts",)  # inputs that the pipeline looks at, too
STORED = ("train", "validation")  # test is evaluated once, and its features are stored then


def divide_stage(run: Trainable, below: Features | None = None) -> Parts | None:
    """The model at the boundary of what is trainable now, and the way there from the boundary of `below`."""
    with run.strategy.scope():
        return divide(run.model, run.groups, keep=KEPT, below=None if below is None else below.parts)


def store_features(
    run: Trainable, stage: Stage, parts: Parts | None, below: Features | None = None
) -> tuple[CacheChoice, Features | None]:
    """Decide whether a stage reads stored features, and compute those that are missing.

    `below` are those of the stage before; where everything under them is still frozen, these come from them.
    """
    if parts is None or parts.between is None:
        below = None
    choice, features = choose_stage_cache(run, stage, parts, below)
    if features is None and parts is not None and run.cache.mode != "off":
        make_console().print(f"No stored features: {choice.reason}", highlight=False, soft_wrap=True)
    if features is not None:
        make_console().print(f"Features: {choice.reason}", highlight=False, soft_wrap=True)
        if isinstance(features.table, DiskTable):
            make_room(choice.needed, run.cache.limit, features.table.folder)
        try:
            fill_features(run, features, below)
        except Overflow:
            features.table.leave()
            if run.cache.storage != "auto":
                raise
            choice, features = choose_stage_cache(run, stage, parts, below, storage="bfloat16")
            if features is not None:
                fill_features(run, features, below)
    return choice, features


def choose_stage_cache(
    run: Trainable,
    stage: Stage,
    parts: Parts | None,
    below: Features | None = None,
    storage: str | None = None,
) -> tuple[CacheChoice, Features | None]:
    """Whether a stage reads stored features; where not, the reason."""
    is_text = isinstance(run.preprocessing, TextPreprocessing)
    if run.cache.mode == "off":
        return off("cache.mode is off"), None
    if parts is None:
        return off("nothing is frozen"), None
    if run.training.mix is not None:
        return off("training.mix mixes pictures anew every epoch"), None
    if isinstance(run.preprocessing, TextPreprocessing) and run.preprocessing.long_texts == "windows":
        return off("a text has several windows"), None
    if run.views is None or (is_text and run.views.by_id):
        advice = "" if is_text else "; cache.views=4 would store so many versions of each example"
        return off(f"the augmentation draws anew every epoch{advice}"), None
    table = run.dataset.manifest.table
    wanted = Wanted(
        parts=parts,
        preprocessing=run.preprocessing,
        splits={name: run.dataset.splits[name] for name in STORED if name in run.dataset.splits},
        views={"train": run.views, "validation": plain_view()},
        hashes=dict(zip(table["id"], table["hash"], strict=True)),
        backbone=run.backbone,
        below=below,
    )
    return choose_cache(run.cache, wanted, stage.epochs, deterministic=run.deterministic, storage=storage)


def fill_features(run: Trainable, features: Features, below: Features | None = None) -> None:
    """Compute the features of training and validation that are not there yet."""
    assert run.views is not None
    features.fill(run.dataset.splits["train"], run.views, "training", below)
    if "validation" in run.dataset.splits:
        features.fill(run.dataset.splits["validation"], plain_view(), "validation", below)
