"""How well tagged words were found, alone and as entities."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlkit.errors import DataError

OUTSIDE = "O"
_TAG = re.compile(r"O|[BIES](-.+)?")

Entity = tuple[str, int, int]
Metrics = tuple[dict[str, Any], dict[str, str]]


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence as (type, first word, word after the last).

    They begin where conlleval (CoNLL-2000) and seqeval's default mode say so: at every `B-` and `S-`, and at
    any other tag but `O` that follows an `O`, an `E-`, an `S-` or another type. So an `I-X` without a `B-X`
    counts as one.
    """
    found: list[Entity] = []
    before, type_before = OUTSIDE, ""
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix != OUTSIDE:
            if prefix in ("B", "S") or before in (OUTSIDE, "E", "S") or kind != type_before:
                found.append((kind, place, place + 1))
            else:
                found[-1] = (kind, found[-1][1], place + 1)
        before, type_before = prefix, kind
    return found


def measure_tags(targets: Sequence[Any], scores: Sequence[Any], classes: Sequence[str]) -> Metrics:
    """`accuracy` over words; `precision`, `recall` and `entity_f1` over all entities; `per_class` by type.

    An entity is right where its type, its first and its last word are. Arguments as in `compute_metrics`.
    """
    if len(targets) != len(scores):
        raise DataError(f"{len(targets)} sentences have tags, but {len(scores)} have scores.")
    names = np.array(classes, dtype=object)
    outside = list(classes).index(OUTSIDE) if OUTSIDE in classes else -1
    true = [np.asarray(row, np.int64) for row in targets]
    predicted = [_predicted(row, len(tags), outside) for row, tags in zip(scores, true, strict=True)]
    n_words = sum(map(len, true))
    if not n_words:
        raise DataError("Cannot compute metrics: the split has no words.")
    right = sum(int((a == b).sum()) for a, b in zip(true, predicted, strict=True))
    metrics: dict[str, Any] = {"accuracy": right / n_words}
    other = [name for name in classes if not _TAG.fullmatch(name)]
    if other:
        reason = f"{other[0]!r} is no tag of an entity (B-…, I-…, E-…, S-… or O)"
        return metrics, dict.fromkeys(("precision", "recall", "entity_f1"), reason)
    wanted, given, both = Counter[str](), Counter[str](), Counter[str]()
    for tags, answers in zip(true, predicted, strict=True):
        entities = set(find_entities(list(names[tags]))), set(find_entities(list(names[answers])))
        for counter, found in zip((wanted, given, both), (*entities, entities[0] & entities[1]), strict=True):
            counter.update(kind for kind, _, _ in found)
    precision, recall, f1 = _ratios(wanted.total(), given.total(), both.total())
    metrics |= {"precision": precision, "recall": recall, "entity_f1": f1, "per_class": {}}
    for kind in sorted(wanted | given):
        precision, recall, f1 = _ratios(wanted[kind], given[kind], both[kind])
        row = {"precision": precision, "recall": recall, "f1": f1, "support": wanted[kind]}
        metrics["per_class"][kind] = row
    return metrics, {}


def _predicted(scores: Any, n_words: int, outside: int) -> np.ndarray:
    """The tag of each of the words; `outside` where nothing is said about it: no score, or equal ones."""
    scores = np.asarray(scores)[:n_words]
    tags = np.full(n_words, outside, np.int64)
    if scores.ndim == 1:
        tags[: len(scores)] = scores
    elif len(scores):
        said = scores.max(axis=1) > scores.min(axis=1)
        tags[: len(scores)] = np.where(said, scores.argmax(axis=1), outside)
    return tags


def _ratios(wanted: int, given: int, both: int) -> tuple[float, float, float]:
    """Precision, recall and F1; what is undefined is 0."""
    return both / max(given, 1), both / max(wanted, 1), 2 * both / max(given + wanted, 1)
