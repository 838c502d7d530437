"""Examples of the sample data that the zoo knows by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn.datasets

from tlkit import zoo
from tlkit.config import DataConfig, Split
from tlkit.data.folder import TEXTS, read_folder
from tlkit.data.rows import Rows
from tlkit.errors import DataError, StorageError
from tlkit.zoo.sample import LabelRule, SampleEntry

_ELPV_COLUMNS = ["path", "probability", "type"]


def read_sample(entry: SampleEntry) -> Rows:
    """The rows of a sample, fetched at first use.

    Raises FetchError where it cannot be had, StorageError where it cannot be read.
    """
    return _READERS[entry.name](entry)


def resolve_sample_split(spec: DataConfig) -> DataConfig:
    """`spec` with the sample's own split rule, where its source is a sample and its split was not set.

    A resolved config says what is done, so it gives the same split when it is read again.
    """
    known = {entry.name: entry for entry in zoo.samples()}
    if spec.source not in known or Path(spec.source).exists() or "split" in spec.model_fields_set:
        return spec
    rule = known[spec.source].split
    # The rule's validation is a share of what test leaves over; ours are shares of all.
    shares = Split(
        test=rule.test, validation=round(rule.validation * (1 - rule.test), 6), stratify_by=rule.stratify_by
    )
    return spec.model_copy(update={"split": shares})


def _read_elpv(entry: SampleEntry) -> Rows:
    folder = zoo.fetch_sample(entry)
    try:
        table = pd.read_csv(folder / "labels.csv", sep=r"\s+", names=_ELPV_COLUMNS)
    except OSError as error:
        raise StorageError(f"Cannot read {folder / 'labels.csv'}: {error.strerror}.") from None
    return Rows(
        where=entry.name,
        name=entry.name,
        labels=pd.DataFrame({"label": _labels(table[entry.label.column], entry.label)}),
        paths=[str(folder / path) for path in table["path"]],
        extras=table[["probability", "type"]],
    )


def _read_digits(entry: SampleEntry) -> Rows:
    digits = sklearn.datasets.load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 0 to 16 in the source
    values = pd.Series(digits.target)
    return Rows(
        where=entry.name,
        name=entry.name,
        labels=pd.DataFrame({"label": _labels(values, entry.label)}),
        pictures=list(grey),
        extras=pd.DataFrame({entry.label.column: values}),
    )


def _read_bbc_news(entry: SampleEntry) -> Rows:
    rows = read_folder(zoo.fetch_sample(entry), DataConfig(), TEXTS)
    assert rows.paths is not None
    texts = [_decode(Path(path)) for path in rows.paths]
    return replace(rows, where=entry.name, name=entry.name, texts=texts)


def _decode(path: Path) -> str:
    """All of these files are UTF-8, but for one in Latin-1 (a pound sign in sports/199.txt)."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror}.") from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _labels(values: pd.Series, rule: LabelRule) -> pd.Series:
    numbers = values > rule.threshold if rule.threshold is not None else values
    if not numbers.astype(int).between(0, len(rule.classes) - 1).all():
        raise DataError(
            f"The sample's column {rule.column!r} does not fit its classes: {', '.join(rule.classes)}."
        )
    return pd.Series([rule.classes[int(number)] for number in numbers], dtype=object)


_READERS = {"elpv": _read_elpv, "digits": _read_digits, "bbc_news": _read_bbc_news}
