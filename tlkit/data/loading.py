"""From a source to splits that are ready to feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tlkit.config import DataConfig, Task
from tlkit.data.content import Content, mark_maker, read_content, sample_maker
from tlkit.data.labels import Labels, parse_labels
from tlkit.data.manifest import SPLITS, Dataset, Examples, Manifest
from tlkit.data.pictures import Pictures, pictures_in_memory, pictures_on_disk
from tlkit.data.rows import Note, Rows
from tlkit.data.sample import resolve_sample_split
from tlkit.data.sources import kind_of, read_rows
from tlkit.data.splitting import read_strata_and_groups, split_rows
from tlkit.data.structure import bad_share_problem, class_problems, require_none, split_problems
from tlkit.data.texts import encode_texts, read_texts
from tlkit.errors import DataCheckError, DataError, StorageError
from tlkit.preprocessing import ImagePreprocessing
from tlkit.preprocessing.text import TextPreprocessing
from tlkit.progress import make_console
from tlkit.zoo.cache import home

_GIB = 2**30
_ID_DIGITS = 12


def load(
    spec: DataConfig,
    task: Task,
    *,
    seed: int,
    preprocessing: ImagePreprocessing | TextPreprocessing,
    source: object | None = None,
    classes: Sequence[str] | None = None,
    only: Literal["train", "validation", "test"] | None = None,
    pair: Literal["auto", "classify", "regress"] = "auto",
) -> Dataset:
    """Read, check and split the examples of `source`, or of `spec.source`.

    Whether they are pictures or texts follows from `preprocessing`. For texts this is `read_texts` and
    `encode_texts` in one; where the vocabulary or the length comes from the training texts, call those.

    Every picture is read once, hashed and decoded. What cannot be used is reported and left out.
    The decoded samples are kept in memory (`spec.memory`) or on the disk (`spec.disk`), where they fit. The
    source's own splits are kept; a missing validation is taken out of train, a missing test stays missing.

    Args:
        seed: Draws the splits.
        source: A path, a sample's name, a DataFrame, `(inputs, labels)`, or a `tf.data.Dataset`.
        classes: The names of an earlier run's classes; no others are accepted, and none has to be there.
        only: Make no splits: all examples are of this one, or those that the source puts there, if it does.
        pair: What the task `pair` learns, as `head.pair` says.

    Raises:
        DataError: The source, a column or a path is wrong, or the labels do not fit the task.
        DataCheckError: The examples were read and cannot be used as they are.
        StorageError: No permission.
        FetchError: A sample cannot be had.
    """
    if isinstance(preprocessing, TextPreprocessing):
        texts = read_texts(
            spec,
            task,
            seed=seed,
            normalization=preprocessing.normalization,
            clean=preprocessing.clean,
            pair=pair,
            source=source,
            classes=classes,
            only=only,
        )
        return encode_texts(texts, preprocessing)[0]
    if task == "pair" or task == "tokens" or task == "embed":
        raise DataError(f"task={task} is for texts, but the backbone takes pictures.")
    source = spec.source if source is None else source
    if kind_of(source) == "sample":
        spec = resolve_sample_split(spec.model_copy(update={"source": source}))
    rows = read_rows(source, spec)
    labels = parse_labels(rows, task, classes, spec.merge_labels)
    strata, groups = read_strata_and_groups(rows, labels, spec, task) if only is None else ([], None)
    samples = _room_for_samples(rows, preprocessing.image_size, spec)
    marks = np.zeros(len(rows), np.int64) if samples is None else None
    maker = mark_maker if samples is None else sample_maker
    content = read_content(rows, maker(preprocessing), marks if samples is None else samples)
    usable = content.usable
    require_none([problem for problem in [bad_share_problem(rows, content, spec.max_bad)] if problem])
    if not usable.any():
        raise DataCheckError(f"{rows.where}: no picture can be used.")
    if classes is None:
        require_none(class_problems(rows, labels, usable, task))
    splits = split_rows(rows, usable, spec, seed, strata, groups, only)
    if classes is None:
        require_none(split_problems(rows, labels, splits))
    table, report = _describe(rows, labels, content, splits, spec)
    return Dataset(
        Manifest(table, labels.classes),
        _examples(rows, labels, splits, table, samples, marks),
        report,
        rows.name,
        task,
    )


def _room_for_samples(rows: Rows, image_size: int, spec: DataConfig) -> Pictures | None:
    shape = (len(rows), image_size, image_size, 3)
    needed = float(np.prod(shape, dtype=np.float64)) / _GIB
    if needed <= spec.memory:
        return pictures_in_memory(shape)
    if rows.pictures is not None:
        raise DataError(
            f"{rows.where}: {len(rows):,} pictures of {image_size} pixels need {needed:.2g} GiB, over "
            f"data.memory = {spec.memory:g}: raise data.memory, or write the pictures to files."
        )
    why = f"{needed:.3g} GiB of decoded pictures are over data.memory and data.disk"
    if needed <= spec.disk:
        try:
            return pictures_on_disk(shape, home() / "samples")
        except StorageError as error:
            why = str(error)
    make_console().print(f"Each epoch decodes its pictures again: {why}.", highlight=False, soft_wrap=True)
    return None


def _describe(
    rows: Rows, labels: Labels, content: Content, splits: npt.NDArray[np.str_], spec: DataConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest's table and the report."""
    notes = [*rows.notes, *labels.notes]
    flags, first = [], {}
    for row, (digest, problem) in enumerate(zip(content.hashes, content.problems, strict=True)):
        flags.append("")
        if problem:
            flags[row] = "unreadable"
            notes.append(Note(rows.describe(row), problem, "left out"))
        elif digest not in first:
            first[digest] = row
        else:
            conflict = labels.text[row] != labels.text[first[digest]]
            flags[row] = "duplicate conflict" if conflict else "duplicate"
            notes.append(_note_duplicate(rows, labels, splits, row, first[digest]))
    table = pd.DataFrame(
        {
            "id": [f"{digest[:_ID_DIGITS]}-{row}" for row, digest in enumerate(content.hashes)],
            "path": "" if rows.pictures is not None else [rows.describe(row) for row in range(len(rows))],
            "label": labels.text,
            "split": splits,
            "hash": content.hashes,
            "flags": flags,
        }
    )
    for column in (spec.split.group_by, spec.split.stratify_by):
        if column is not None and column in rows.extras and column not in table:
            table[column] = rows.extras[column].to_numpy()
    return table, pd.DataFrame(notes, columns=Note._fields)


def _note_duplicate(rows: Rows, labels: Labels, splits: npt.NDArray[np.str_], row: int, first: int) -> Note:
    problem = f"has the same content as {rows.describe(first)}"
    if labels.text[row] != labels.text[first]:
        problem += f", but is labelled {labels.text[row]!r} and not {labels.text[first]!r}"
    if splits[row] != splits[first]:
        problem += f", and is in {splits[row] or 'no split'} while that is in {splits[first] or 'no split'}"
    return Note(rows.describe(row), problem, "kept")


def _examples(
    rows: Rows,
    labels: Labels,
    splits: npt.NDArray[np.str_],
    table: pd.DataFrame,
    samples: Pictures | None,
    marks: npt.NDArray[np.int64] | None,
) -> dict[str, Examples]:
    members = {name: np.flatnonzero(splits == name) for name in SPLITS}
    ids = table["id"].to_numpy(np.str_)
    paths = np.array(rows.paths, dtype=object) if rows.paths is not None else None  # the strings are shared
    examples = {}
    for name, chosen in members.items():
        if len(chosen):
            examples[name] = Examples(
                ids=ids[chosen],
                paths=paths[chosen] if paths is not None else None,
                samples=samples[chosen] if samples is not None else None,
                targets=labels.targets[chosen],
                weights=rows.weights[chosen] if rows.weights is not None else None,
                records=rows.records[chosen] if rows.records is not None else None,
                marks=marks[chosen] if marks is not None else None,
            )
    return examples
