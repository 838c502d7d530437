"""What one example's scores mean, as a dict that people and programs read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlkit.evaluation import find_entities
from tlkit.workflows.run import Run

_ENTITY_TAG = re.compile(r"O|[BIES](-.+)?")


@dataclass(frozen=True)
class Input:
    """One example to predict: how answers name it, and its sample or the reason why there is none."""

    shown: dict[str, Any]
    sample: Any = None
    error: str | None = None


def describe(scores: np.ndarray, run: Run, top: int = 5) -> dict[str, Any]:
    """The answer for the scores (classes,), values (targets,) or vector (d,) of one example.

    Classifiers: `label`, `score`, `scores` and `top_k`; regressors: `value`; embed: `vector`.
    """
    if run.config.objective == "embed":
        return {"vector": [float(value) for value in scores]}
    if run.classes is None:
        return {"value": float(scores[0]) if scores.size == 1 else [float(value) for value in scores]}
    order = np.argsort(-scores, kind="stable")
    names = run.classes
    best = int(order[0])
    label = names[best]
    if run.config.objective == "multilabel":
        label = "|".join(name for name, score in zip(names, scores, strict=True) if score > 0.5)
    return {
        "label": label,
        "score": float(scores[best]),
        "scores": {name: float(score) for name, score in zip(names, scores, strict=True)},
        "top_k": [{"label": names[int(index)], "score": float(scores[int(index)])} for index in order[:top]],
    }


def describe_words(
    words: list[str],
    tags: list[str],
    scores: list[float],
    places: list[tuple[int, int]] | None,
    text: str | None,
    classes: Sequence[str],
) -> dict[str, Any]:
    """The answer for one example of `tokens`.

    `places` are where the words start and end in `text`, in code points; None where it came as words. Where
    the tags, `classes`, are no tags of entities, none are found.

    Returns:
        `words`, each with `word`, `tag` and `score`, and `entities`, each with `type`, `text` and the lowest
        `score` of its words; both with `start` and `end`: places in the text, or else the number of the first
        word and of the one after the last.
    """
    spans = places or [(number, number + 1) for number in range(len(words))]
    described = [
        {"word": word, "tag": tag, "score": score, "start": start, "end": end}
        for word, tag, score, (start, end) in zip(words, tags, scores, spans, strict=True)
    ]
    entities = []
    for kind, first, last in find_entities(tags) if all(map(_ENTITY_TAG.fullmatch, classes)) else ():
        start, end = spans[first][0], spans[last - 1][1]
        entities.append(
            {
                "type": kind,
                "text": " ".join(words[first:last]) if text is None else text[start:end],
                "start": start,
                "end": end,
                "score": min(scores[first:last]),
            }
        )
    return {"words": described, "entities": entities}
