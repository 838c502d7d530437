"""The features that a stage reads: where its model is divided, whether and where they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tlkit.config import CacheConfig
from tlkit.devices import device_kind
from tlkit.errors import StorageError
from tlkit.exchange import sum_over_workers
from tlkit.features import DiskTable, MemoryTable, make_room
from tlkit.plans import Stage
from tlkit.preprocessing import TextPreprocessing
from tlkit.preprocessing.views import plain_view
from tlkit.progress import make_console
from tlkit.training.cache.boundary import Parts, divide
from tlkit.training.cache.choice import CacheChoice, Wanted, choose_cache, find_problem, off, require_room
from tlkit.training.cache.features import Features, Overflow
from tlkit.training.freeze import apply_freeze
from tlkit.training.trainable import Trainable

KEPT = ("word_starts",)  # inputs that the pipeline looks at, too
STORED = ("train", "validation")  # test is evaluated once, and its features are stored then


def divide_stage(run: Trainable, below: Features | None = None) -> Parts | None:
    """The model at the boundary of what is trainable now, and the way there from the boundary of `below`."""
    with run.strategy.scope():
        return divide(run.model, run.groups, keep=KEPT, below=None if below is None else below.parts)


def require_room_for(run: Trainable, stages: Sequence[Stage]) -> None:
    """Refuse, before training, a stage whose features do not fit where all have to be on the disk.

    Not those of a stage with adapters: they are not there yet, and tell where it begins.

    Raises:
        StorageError: `cache.mode` is disk, and the limit or the disk is too small, or cannot be used.
    """
    for stage in stages:
        if run.cache.mode != "disk" or stage.adapters is not None:
            continue
        apply_freeze(run.model, run.groups, stage, run.batch_norm)
        wanted = want_features(run, divide_stage(run))
        if isinstance(wanted, Wanted):
            try:
                require_room(run.cache, wanted)
            except StorageError as error:
                raise StorageError(f"Stage {stage.name!r}: {error}") from error


def store_features(
    run: Trainable, stage: Stage, parts: Parts | None, below: Features | None = None
) -> tuple[CacheChoice, Features | None]:
    """Decide whether a stage reads stored features, and compute those that are missing.

    What cannot be stored as it was decided is stored in another way, as far as the config leaves that open,
    or not at all; the choice says so.

    Args:
        run: What is trainable is that of the stage.
        stage: To be trained.
        parts: The model at the boundary.
        below: The features of the stage before. Where everything under them is still frozen, these come from
            them; otherwise they are left, and may have to make room.

    Raises:
        Overflow: A value does not fit into the storage type that the config asks for.
        StorageError: The config asks for the disk, and there is no room, or it fails.
    """
    if below is not None and (parts is None or parts.between is None):
        below.table.leave()
        below = None
    wanted = want_features(run, parts, below)
    choice, features = _store(run, stage, wanted) if isinstance(wanted, Wanted) else (off(wanted), None)
    choice, features = _agreed(run, choice, features)
    if features is None and parts is not None and run.cache.mode != "off":
        _say(f"No stored features: {choice.reason}")
    return choice, features


def features_of_split(run: Trainable, features: Features | None, split: str) -> Features | None:
    """The features of a stage, with those of a split that is read once; None where the model has to compute
    them instead, and why is said.

    They are added on the disk, for whoever evaluates again, if there is room. In memory they would be of no
    use.
    """
    if features is None or not features.count_missing(run.dataset.splits[split], plain_view()):
        return features
    if isinstance(features.table, MemoryTable):
        return None
    wanted = Wanted(
        parts=features.parts,
        preprocessing=features.preprocessing,
        splits={split: run.dataset.splits[split]},
        views={split: plain_view()},
        hashes=features.hashes,
        backbone=run.backbone,
    )
    try:
        _fill(features, wanted, run.cache.limit)
    except (Overflow, StorageError) as error:
        _say(f"No stored features of {split}: {error}")
        return None
    return features


def _agreed(
    run: Trainable, choice: CacheChoice, features: Features | None
) -> tuple[CacheChoice, Features | None]:
    """Of several workers all store features, or none does: that they do may depend on memory and times."""
    n_without = sum_over_workers(run.strategy, float(features is None))
    if features is None or not n_without:
        return choice, features
    features.table.leave()
    return off("another worker has no room for them, or would not gain"), None


def choose_stage_cache(
    run: Trainable, stage: Stage, parts: Parts | None, below: Features | None = None
) -> tuple[CacheChoice, Features | None]:
    """Whether a stage reads stored features; where not, the reason. Nothing is stored yet."""
    wanted = want_features(run, parts, below)
    if not isinstance(wanted, Wanted):
        return off(wanted), None
    return _choose(run, stage, run.cache, wanted)


def want_features(run: Trainable, parts: Parts | None, below: Features | None = None) -> Wanted | str:
    """The features that a stage could read, or why there are none."""
    is_text = isinstance(run.preprocessing, TextPreprocessing)
    if run.cache.mode == "off":
        return "cache.mode is off"
    if parts is None:
        return "nothing is frozen"
    if run.training.mix is not None:
        return "training.mix mixes pictures anew every epoch"
    if isinstance(run.preprocessing, TextPreprocessing) and run.preprocessing.long_texts == "windows":
        return "a text has several windows"
    if run.views is None or (is_text and run.views.by_id):
        advice = "" if is_text else "; cache.views=4 would store so many versions of each example"
        return f"the augmentation draws anew every epoch{advice}"
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
    return find_problem(wanted) or wanted


def _choose(
    run: Trainable, stage: Stage, spec: CacheConfig, wanted: Wanted
) -> tuple[CacheChoice, Features | None]:
    # The replicas on a CPU have its cores together, and are no faster than one.
    devices = run.share.total if device_kind(run.strategy) == "CPU" else run.n_replicas
    return choose_cache(spec, wanted, stage.epochs, deterministic=run.deterministic, devices=devices)


def _store(run: Trainable, stage: Stage, wanted: Wanted) -> tuple[CacheChoice, Features | None]:
    spec, note = run.cache, ""
    while True:
        choice, features = _choose(run, stage, spec, wanted)
        choice = replace(choice, reason=f"{choice.reason}{note}")
        if features is None:
            return choice, None
        _say(f"Features: {choice.reason}")
        try:
            _fill(features, wanted, spec.limit)
            return choice, features
        except (Overflow, StorageError) as error:
            features.table.leave()
            spec, note = _give_way(spec, error)


def _give_way(spec: CacheConfig, error: Overflow | StorageError) -> tuple[CacheConfig, str]:
    """What to ask for after an error, and what is said of it. Raises the error where nothing is left open."""
    if isinstance(error, Overflow) and spec.storage == "auto":
        return spec.model_copy(update={"storage": "bfloat16"}), "; they do not fit into float16"
    if isinstance(error, StorageError) and spec.mode == "auto":
        return spec.model_copy(update={"mode": "memory"}), f"; not on the disk: {error}"
    raise error


def _fill(features: Features, wanted: Wanted, limit: int) -> None:
    """Compute what is missing. On the disk, room is made for it before."""
    if isinstance(features.table, DiskTable):
        needed = wanted.count_needed(wanted.count_bytes(features), wanted.count_missing(features))
        make_room(needed, limit, features.table.folder)
    for split, examples in wanted.splits.items():
        name = "training" if split == "train" else split
        features.fill(examples, wanted.views[split], name, wanted.below)


def _say(line: str) -> None:
    make_console().print(line, highlight=False, soft_wrap=True)
