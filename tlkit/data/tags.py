"""Tags of words: sequences that cannot be, and counts that differ from those of the words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tlkit.data.labels import Labels, merge_spellings, sorted_names
from tlkit.data.rows import Note, Rows
from tlkit.errors import DataError

BIO = r"O|[BI]-.+"


def parse_tags(rows: Rows, classes: Sequence[str] | None = None, merge: bool = False) -> Labels:
    """The tags of `rows`: targets are int32 (n,) of int32 arrays, one tag for each word.

    In BIO tags an entity begins with `B-X` and goes on with `I-X`. An `I-X` that follows neither cannot be:
    it is read as `B-X`, as seqeval counts it, and noted. `merge` is that of `data.merge_labels`.

    Raises DataCheckError for tags that `classes` does not hold.
    """
    if rows.labels.shape[1] != 1:
        raise DataError(f"{rows.where}: {rows.labels.shape[1]} label columns, but task=tokens takes one.")
    raw = [[tag.strip() for tag in tags] for tags in rows.labels.iloc[:, 0]]
    spelling, notes = merge_spellings([tag for tags in raw for tag in tags], merge, classes)
    tags = [[spelling[tag] for tag in sentence] for sentence in raw]
    for row, sentence in enumerate(tags):
        wrong = [number for number in range(len(sentence)) if _cannot_be(sentence, number)]
        if not wrong:
            continue
        before = sentence[wrong[0]]
        for number in wrong:
            sentence[number] = f"B-{sentence[number][2:]}"
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        notes.append(
            Note(
                rows.describe(row),
                f"tag {before!r} of word {wrong[0] + 1}{more} continues an entity that did not begin",
                f"read as {sentence[wrong[0]]!r}",
            )
        )
    for tag in sorted({tag for sentence in tags for tag in sentence if not re.fullmatch(BIO, tag)}):
        notes.append(
            Note("", f"tag {tag!r} is not BIO: neither O nor B-… nor I-…", "kept, as a tag of its own")
        )
    names = sorted_names([tag for sentence in tags for tag in sentence], classes, rows)
    index = {name: number for number, name in enumerate(names)}
    targets = np.empty(len(tags), dtype=object)
    for row, sentence in enumerate(tags):
        targets[row] = np.array([index[tag] for tag in sentence], dtype=np.int32)
    text = np.array([" ".join(sentence) for sentence in tags], dtype=object)
    return Labels(text, targets, names, tuple(notes))


def with_counts_checked(rows: Rows) -> Rows:
    """`rows`, with those broken that have not as many tags as words, or an empty tag."""
    broken = dict(rows.broken)
    assert rows.texts is not None
    for row, (words, tags) in enumerate(zip(rows.texts, rows.labels.iloc[:, 0], strict=True)):
        if row not in broken and len(words) != len(tags):
            broken[row] = f"has {len(words)} words and {len(tags)} tags"
        elif row not in broken and not all(tag.strip() for tag in tags):
            broken[row] = "has an empty tag"
    kept = [[] if row in broken else tags for row, tags in enumerate(rows.labels.iloc[:, 0])]
    labels = rows.labels.copy()
    labels.isetitem(0, np.fromiter(kept, dtype=object, count=len(kept)))
    return replace(rows, broken=broken, labels=labels)


def _cannot_be(tags: Sequence[str], number: int) -> bool:
    tag = tags[number]
    if not tag.startswith("I-"):
        return False
    before = tags[number - 1] if number else ""
    return before not in (tag, f"B-{tag[2:]}")
