"""Look at a source without training on it: counts, balance, sizes, and what cannot be used."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tlkit.config import DataConfig, Task
from tlkit.config.head import TEXT_TASKS
from tlkit.config.text import Normalization
from tlkit.data.content import Content, read_content, size_maker
from tlkit.data.labels import Labels, parse_labels
from tlkit.data.manifest import SPLITS
from tlkit.data.rows import Rows
from tlkit.data.sources import read_rows
from tlkit.data.splitting import read_strata_and_groups, split_rows
from tlkit.data.structure import bad_share_problem, class_problems, count_classes, split_problems
from tlkit.data.text_content import TextContent, read_text_content
from tlkit.data.text_sources import modality_of
from tlkit.data.texts import read_labelled
from tlkit.errors import DataCheckError

_MADE = "all"


@dataclass(frozen=True)
class CheckReport:
    """What a check found; `ok` is False where a run would refuse the examples (`problems` says why).

    `splits`: examples per split of the source, or under "all" where a run would make the splits. `classes`:
    examples per class and split, usable ones only; empty for regression. `balance`: the largest class divided
    by the smallest. `values`: min, median and max of each number (regression). `sizes`: min, median and max
    of width and height, in pixels, or of the number of words. `empty`: how many texts are. `unreadable`,
    `notes`: path, problem and action of each. `duplicates`: the groups of examples with one content;
    `conflicts`: those of them with different labels.
    """

    source: str
    modality: Literal["image", "text"]
    examples: int
    usable: int
    splits: dict[str, int]
    classes: dict[str, dict[str, int]]
    balance: float | None
    values: dict[str, dict[str, float]]
    sizes: dict[str, dict[str, float]]
    empty: int
    unreadable: tuple[dict[str, str], ...]
    notes: tuple[dict[str, str], ...]
    duplicates: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"ok": self.ok, **asdict(self)}


def check(
    spec: DataConfig,
    task: Task = "classify",
    *,
    source: object | None = None,
    pair: Literal["auto", "classify", "regress"] = "auto",
) -> CheckReport:
    """Read and decode every example of `source` (or `spec.source`), as a run would, and report.

    `pair` is what that task learns, as `head.pair` says.

    Raises DataError where the source, a column or a path is wrong, and DataCheckError for missing labels;
    what is wrong with the examples as a whole is in the report.
    """
    source = spec.source if source is None else source
    if task in TEXT_TASKS or modality_of(source, spec) == "text":
        rows, labels, objective = read_labelled(spec, task, pair, source)
        texts = read_text_content(rows, task, Normalization())
        sizes = dict(zip(("words", "words of the second text"), texts.words.T, strict=False))
        return _report(rows, labels, texts, texts.keys, sizes, objective, spec, "text")
    rows = read_rows(source, spec)
    labels = parse_labels(rows, task, merge=spec.merge_labels)
    sides = np.zeros((len(rows), 2), np.int32)
    content = read_content(rows, size_maker(), sides)
    sizes = {"width": sides[:, 1], "height": sides[:, 0]}
    return _report(rows, labels, content, content.hashes, sizes, task, spec, "image")


def _report(
    rows: Rows,
    labels: Labels,
    content: Content,
    keys: Sequence[Hashable],
    sizes: dict[str, npt.NDArray[Any]],
    objective: Task,
    spec: DataConfig,
    modality: Literal["image", "text"],
) -> CheckReport:
    """`keys` tell which rows have one content, `sizes` have a value per row."""
    noun = "text" if modality == "text" else "picture"
    usable = content.usable
    splits = np.where(usable, rows.splits if rows.splits is not None else _MADE, "")
    found = [
        bad_share_problem(rows, content, spec.max_bad, noun),
        *class_problems(rows, labels, usable, objective, noun),
    ]
    if rows.splits is not None and objective != "tokens":  # a rare tag costs a few words, not the run
        found += split_problems(rows, labels, splits)
    if not any(found):  # what is wrong already would be said twice
        found.append(_split_refusal(rows, labels, usable, spec, objective))
    classes = _class_counts(labels, splits)
    totals = [sum(counts.values()) for counts in classes.values()]
    duplicates, conflicts = _duplicates(rows, labels, keys, usable)
    own_notes = content.notes if isinstance(content, TextContent) else ()
    return CheckReport(
        source=rows.where,
        modality=modality,
        examples=len(rows),
        usable=int(usable.sum()),
        splits={name: int(np.sum(splits == name)) for name in (*SPLITS, _MADE) if np.any(splits == name)},
        classes=classes,
        balance=round(max(totals) / min(totals), 2) if totals and min(totals) > 0 else None,
        values=_values(labels, usable),
        sizes={name: _spread(values[usable]) for name, values in sizes.items()} if usable.any() else {},
        empty=sum((problem or "").startswith("is empty") for problem in content.problems),
        unreadable=tuple(
            {"path": rows.describe(row), "problem": problem, "action": "left out"}
            for row, problem in enumerate(content.problems)
            if problem
        ),
        notes=tuple(note._asdict() for note in (*rows.notes, *labels.notes, *own_notes)),
        duplicates=duplicates,
        conflicts=conflicts,
        problems=tuple(problem for problem in found if problem),
    )


def _split_refusal(
    rows: Rows, labels: Labels, usable: npt.NDArray[np.bool_], spec: DataConfig, objective: Task
) -> str | None:
    """Why a run could not draw its splits, whatever its seed."""
    try:
        split_rows(rows, usable, spec, 0, *read_strata_and_groups(rows, labels, spec, objective), only=None)
    except DataCheckError as error:
        return str(error)
    return None


def _class_counts(labels: Labels, splits: npt.NDArray[np.str_]) -> dict[str, dict[str, int]]:
    if labels.classes is None:
        return {}
    names = [name for name in (*SPLITS, _MADE) if np.any(splits == name)]
    counts = {name: count_classes(labels, splits == name) for name in names}
    return {
        label: {name: int(counts[name][row]) for name in names} for row, label in enumerate(labels.classes)
    }


def _values(labels: Labels, usable: npt.NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    if labels.classes is not None or not usable.any():
        return {}
    targets = labels.targets[usable].reshape(usable.sum(), -1)
    return {str(column): _spread(targets[:, column]) for column in range(targets.shape[1])}


def _spread(values: npt.NDArray[Any]) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}


def _duplicates(
    rows: Rows, labels: Labels, keys: Sequence[Hashable], usable: npt.NDArray[np.bool_]
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Groups of examples with the same content, and those of them that disagree about the label."""
    groups: dict[Hashable, list[int]] = {}
    for row in np.flatnonzero(usable).tolist():
        groups.setdefault(keys[row], []).append(row)
    same = [members for members in groups.values() if len(members) > 1]
    differing = [members for members in same if len({labels.text[row] for row in members}) > 1]

    def name(sets: list[list[int]]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(rows.describe(row) for row in members) for members in sets)

    return name(same), name(differing)
