"""What is wrong with a set of examples as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tlkit.config import Task
from tlkit.data.content import Content
from tlkit.data.labels import Labels
from tlkit.data.rows import Rows, list_some
from tlkit.errors import DataCheckError


def bad_share_problem(rows: Rows, content: Content, max_bad: float, noun: str = "picture") -> str | None:
    """The line that stops a run, where more than `max_bad` of the pictures or texts cannot be used."""
    bad = [row for row, problem in enumerate(content.problems) if problem]
    if not bad or len(bad) <= max_bad * len(rows):
        return None
    shown = [f"{rows.describe(row)} {content.problems[row]}" for row in bad]
    is_path = rows.paths is not None or Path(rows.where).exists()
    see = f" All of them: tlkit data check {rows.where}." if is_path else ""
    return (
        f"{rows.where}: {len(bad)} of {len(rows)} {noun}s ({len(bad) / len(rows):.1%}) cannot be used, "
        f"more than data.max_bad = {max_bad:.0%}: {list_some(shown, separator='; ')}.{see}"
    )


def class_problems(
    rows: Rows, labels: Labels, usable: npt.NDArray[np.bool_], task: Task, noun: str = "picture"
) -> list[str]:
    """Empty and missing classes, and a single one. None for regression."""
    problems = []
    if rows.empty_classes:
        problems.append(
            f"{rows.where}: {len(rows.empty_classes)} class folders hold no {noun}: "
            f"{list_some(rows.empty_classes)}. Fill or remove them."
        )
    if labels.classes is None:
        return problems
    counts = count_classes(labels, usable)
    single = {"classify": ("class", "classification"), "tokens": ("tag", "task=tokens")}
    if task in single and len(labels.classes) == 1:
        what, needing = single[task]
        problems.append(
            f"{rows.where}: there is only one {what}, {labels.classes[0]!r}; "
            f"{needing} needs two or more.{rows.hint}"
        )
    gone = [name for name, count in zip(labels.classes, counts, strict=True) if not count]
    if gone:
        problems.append(f"{rows.where}: no usable {noun} in {len(gone)} of the classes: {list_some(gone)}.")
    return problems


def split_problems(rows: Rows, labels: Labels, splits: npt.NDArray[np.str_]) -> list[str]:
    """Labels that are asked for in validation or test and are not in train."""
    if labels.classes is None:
        return []
    problems = []
    trained = count_classes(labels, splits == "train")
    for split in ("validation", "test"):
        counts = count_classes(labels, splits == split)
        unseen = [
            name
            for name, count, known in zip(labels.classes, counts, trained, strict=True)
            if count and not known
        ]
        if unseen:
            problems.append(
                f"{rows.where}: {len(unseen)} labels in {split} are not in train: {list_some(unseen)}. "
                "Add training examples or take them out."
            )
    return problems


def count_classes(labels: Labels, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many of the chosen examples each class has; of tags, how many words."""
    assert labels.classes is not None
    if labels.targets.dtype == object:
        tags = np.concatenate([np.zeros(0, np.int32), *labels.targets[chosen]])
        return np.bincount(tags, minlength=len(labels.classes)).astype(np.int64)
    if labels.targets.ndim == 1:
        return np.bincount(labels.targets[chosen], minlength=len(labels.classes)).astype(np.int64)
    counts: npt.NDArray[np.int64] = labels.targets[chosen].sum(axis=0).astype(np.int64)
    return counts


def require_none(problems: list[str]) -> None:
    """Raises DataCheckError with all `problems` in one line, where there are any."""
    if problems:
        raise DataCheckError(" ".join(problems))
