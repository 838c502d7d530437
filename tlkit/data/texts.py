"""From a source of texts to splits that are ready to feed, in two steps.

A vocabulary that is learned and the default `sequence_length` both come from the training texts, so reading,
cleaning and splitting is the first step, and counting tokens the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf

from tlkit.config import DataConfig, Task
from tlkit.config.head import Objective
from tlkit.config.text import Normalization
from tlkit.data.content import watched
from tlkit.data.copies import conflicts_to_drop, duplicates_to_drop, find_copies, note_copies
from tlkit.data.labels import Labels, parse_labels, resolve_pair
from tlkit.data.manifest import SPLITS, Dataset, Examples, Manifest
from tlkit.data.rows import Note, Rows
from tlkit.data.sample import resolve_sample_split
from tlkit.data.splitting import read_strata_and_groups, split_rows
from tlkit.data.structure import bad_share_problem, class_problems, require_none, split_problems
from tlkit.data.tags import parse_tags, with_counts_checked
from tlkit.data.text_content import (
    Cleaner,
    TextContent,
    in_chunks,
    normalise,
    parts_of,
    read_text_content,
    writable,
)
from tlkit.data.text_manifest import text_table
from tlkit.data.text_sources import kind_of_text, read_text_rows
from tlkit.errors import DataCheckError, StorageError
from tlkit.preprocessing.text import TextPreprocessing, bucket_sizes, default_sequence_length

_STRIDE = 0.75  # of a window; the rest is in the window before it, too


@dataclass(frozen=True)
class Texts:
    """Texts that were read, cleaned, labelled and split; `encode_texts` makes a `Dataset` of them.

    `splits` (n,) is "" for what is left out. `table` and `report` are those of the `Dataset`.
    """

    rows: Rows
    labels: Labels
    content: TextContent
    normalization: Normalization
    splits: npt.NDArray[np.str_]
    table: pd.DataFrame
    report: tuple[Note, ...]
    objective: Objective

    @property
    def training(self) -> Iterator[str]:
        """The normalised training texts: both of a pair, and every word of `tokens`, each by itself."""
        for chunk in in_chunks(self.rows, np.flatnonzero(self.splits == "train")):
            for text in self.samples(chunk):
                yield from parts_of(text)

    def samples(self, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.object_]:
        """Those of some rows, as in `Examples`; read now where they are not held. Raises StorageError."""
        if self.content.samples is not None:
            return self.content.samples[chosen]
        assert self.rows.records is not None
        try:
            raw = [self.rows.records.parts(row) for row in chosen.tolist()]
        except OSError as error:
            raise StorageError(f"{self.rows.where} cannot be read: {error.strerror}.") from None
        flat = normalise([part for parts in raw for part in parts], self.normalization)
        return np.array(flat, dtype=object).reshape((-1, 2) if self.rows.are_pairs else -1)


def read_texts(
    spec: DataConfig,
    task: Task,
    *,
    seed: int,
    normalization: Normalization | None = None,
    clean: Cleaner | None = None,
    pair: Literal["auto", "classify", "regress"] = "auto",
    source: object | None = None,
    classes: Sequence[str] | None = None,
    only: Literal["train", "validation", "test"] | None = None,
) -> Texts:
    """Read, check, clean and split the texts of `source`, or of `spec.source`.

    What cannot be used is reported and left out, copies by the rule in `copies.py`. The source's own splits
    are kept; a missing validation is taken out of train, a missing test stays missing. With `only`, nothing
    that can be used is left out.

    Args:
        seed: Draws the splits.
        normalization: What the graph does to a text before it is tokenised.
        clean: NLTK steps, from texts to texts; they run before the graph, on everything but `tokens`.
        pair: What the task `pair` learns, as `head.pair` says.
        source: A path, a sample's name, a DataFrame, `(texts, labels)`, or a `tf.data.Dataset` of strings.
        classes: The names of an earlier run's classes; no others are accepted, and none has to be there.
        only: Make no splits: all texts are of this one, or those that the source puts there, if it does.

    Raises:
        DataError: The source or a column is wrong, or the labels do not fit the task.
        DataCheckError: The texts were read and cannot be used as they are.
        StorageError: No permission.
        FetchError: A sample cannot be had.
    """
    source = spec.source if source is None else source
    if kind_of_text(source) == "sample":
        spec = resolve_sample_split(spec.model_copy(update={"source": source}))
    rows, labels, objective = read_labelled(spec, task, pair, source, classes)
    normalization = normalization or Normalization()
    content = read_text_content(rows, task, normalization, clean)
    usable = content.usable
    if not usable.any():
        raise DataCheckError(f"{rows.where}: no text can be used: {rows.describe(0)} {content.problems[0]}.")
    require_none([line for line in [bad_share_problem(rows, content, spec.max_bad, "text")] if line])
    copies = find_copies(content.keys, labels.text.tolist(), usable, labels.classes is not None)
    if only is None:
        strata, groups = read_strata_and_groups(rows, labels, spec, objective)
        kept = usable.copy()
        kept[duplicates_to_drop(copies, rows.splits, spec)] = False
        splits = split_rows(rows, kept, spec, seed, strata, groups, None)
        splits[conflicts_to_drop(copies, splits, spec)] = ""
    else:
        splits = split_rows(rows, usable, spec, seed, [], None, only)
    notes = [*rows.notes, *labels.notes, *content.notes]
    if classes is None:
        require_none(class_problems(rows, labels, splits != "", objective, "text"))
        unseen = split_problems(rows, labels, splits)
        if objective == "tokens":  # a rare tag costs a few words, not the run
            notes += [Note("", problem, "kept") for problem in unseen]
        else:
            require_none(unseen)
    copied, flags = note_copies(copies, rows, splits)
    notes += [
        Note(rows.describe(row), problem, "left out")
        for row, problem in enumerate(content.problems)
        if problem
    ]
    flags.update((row, "unreadable") for row in np.flatnonzero(~usable).tolist())
    table = text_table(rows, labels, content, splits, flags, spec)
    report = tuple(Note(*map(writable, note)) for note in (*notes, *copied))
    return Texts(rows, labels, content, normalization, splits, table, report, objective)


def encode_texts(
    texts: Texts, preprocessing: TextPreprocessing, *, fit_length: bool = False
) -> tuple[Dataset, TextPreprocessing]:
    """Count the tokens of every text, and make the examples of each split.

    With `fit_length`, `sequence_length` becomes what holds 95 % of the training texts (see
    `default_sequence_length`), and the buckets those that go with it; that preprocessing is returned.
    Without, it is returned as it came.
    """
    counts = _count_tokens(texts, preprocessing)
    if fit_length and not preprocessing.takes_strings:
        length = default_sequence_length(preprocessing.input, counts[texts.splits == "train"].tolist())
        buckets = bucket_sizes(length) if preprocessing.buckets else ()
        preprocessing = replace(preprocessing, sequence_length=length, buckets=buckets)
    used = texts.splits != ""
    long = int(np.sum(counts[used] > preprocessing.sequence_length))
    report = list(texts.report)
    if long:
        share = f"{long:,} of {int(used.sum()):,} texts ({long / used.sum():.1%})"
        action = "split into windows" if preprocessing.long_texts == "windows" else "cut"
        limit = f"are longer than {preprocessing.sequence_length} tokens"
        report.append(Note("", f"{share} {limit}", f"{action} ({preprocessing.long_texts})"))
    lengths = _seen_lengths(counts, preprocessing)
    dataset = Dataset(
        manifest=Manifest(texts.table, texts.labels.classes),
        splits={
            name: _examples(texts, np.flatnonzero(texts.splits == name), lengths)
            for name in SPLITS
            if np.any(texts.splits == name)
        },
        report=pd.DataFrame(report, columns=Note._fields),
        name=texts.rows.name,
        objective=texts.objective,
        truncated=long / int(used.sum()),
    )
    return dataset, preprocessing


def read_labelled(
    spec: DataConfig,
    task: Task,
    pair: Literal["auto", "classify", "regress"],
    source: object,
    classes: Sequence[str] | None = None,
) -> tuple[Rows, Labels, Objective]:
    """The rows of a source of texts, their labels, and what is learned from them."""
    rows = read_text_rows(source, spec, task)
    if task == "tokens":
        rows = with_counts_checked(rows)
        return rows, parse_tags(rows, classes, spec.merge_labels), "tokens"
    objective = resolve_pair(rows, pair) if task == "pair" else task
    return rows, parse_labels(rows, objective, classes, spec.merge_labels), objective


def text_tensor(samples: npt.NDArray[np.object_]) -> tf.Tensor | tf.RaggedTensor:
    """Samples as strings (n,) or (n, 2), or ragged strings (n, None) of words."""
    if len(samples) and isinstance(samples[0], list):
        words = [word for text in samples for word in text]
        sizes = [len(text) for text in samples]
        return tf.RaggedTensor.from_row_lengths(tf.constant(words, tf.string), tf.constant(sizes, tf.int64))
    return tf.constant(samples.tolist(), tf.string)


def _count_tokens(texts: Texts, preprocessing: TextPreprocessing) -> npt.NDArray[np.int64]:
    """Tokens of each text before it is cut, 0 where it is left out."""
    counts = np.zeros(len(texts.rows), np.int64)
    chunks = in_chunks(texts.rows, np.flatnonzero(texts.splits != ""))
    for chosen in watched(chunks, len(chunks), "Counting tokens"):
        with tf.device("CPU:0"):
            counts[chosen] = preprocessing.count_tokens(text_tensor(texts.samples(chosen))).numpy()
    return counts


def _seen_lengths(counts: npt.NDArray[np.int64], preprocessing: TextPreprocessing) -> npt.NDArray[np.int32]:
    """What `Examples.lengths` says."""
    most = preprocessing.sequence_length
    lengths = np.minimum(counts, most)
    if preprocessing.long_texts == "windows":
        windows = np.minimum(np.ceil(counts / (_STRIDE * most)), preprocessing.max_windows).astype(np.int64)
        lengths = np.where(counts > most, windows * most, lengths)
    return lengths.astype(np.int32)


def _examples(texts: Texts, chosen: npt.NDArray[np.intp], lengths: npt.NDArray[np.int32]) -> Examples:
    weights, samples, marks = texts.rows.weights, texts.content.samples, texts.content.marks
    return Examples(
        ids=texts.table["id"].to_numpy(np.str_)[chosen],
        paths=None,
        samples=samples[chosen] if samples is not None else None,
        targets=texts.labels.targets[chosen],
        weights=weights[chosen] if weights is not None else None,
        lengths=lengths[chosen],
        records=texts.rows.records[chosen] if texts.rows.records is not None and samples is None else None,
        marks=marks[chosen] if marks is not None else None,
    )
