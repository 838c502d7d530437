"""Which examples a run uses, and how they are split."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from tlkit.config.base import Options

Share = Annotated[float, pydantic.Field(ge=0.0, lt=1.0)]


class Columns(Options):
    """The columns of a table (CSV, Parquet or DataFrame), or features of records, that hold the examples."""

    path: str = "path"
    """Column of picture paths, absolute or relative to the table's folder. Of records: the feature with the
    bytes of the picture; where none has this name, the one that looks like a picture."""
    text: str = "text"
    """Column of texts."""
    text_b: str = "text_b"
    """Column of the second texts, for `pair` and `embed`."""
    tokens: str = "tokens"
    """Column of lists of words, for `tokens`: a list, or the words with spaces between them."""
    label: str | tuple[str, ...] = "label"
    """One label column, or several (0/1 columns for `multilabel`, numbers for `regress`). For `tokens`: as
    many tags as there are words. Of records, `image/class/label` and the like where there is no `label`."""
    weight: str | None = None
    """Column of numbers: how much each training example counts. None: all the same."""


class Split(Options):
    """Shares of the three splits, used where the source does not bring its own."""

    validation: Share = 0.15
    """Share of all examples. Stratified by label (by quantile for numbers)."""
    test: Share = 0.15
    """Share of all examples. 0 leaves out the test split."""
    group_by: str | None = None
    """A column of the table; examples that share its value stay in one split."""
    stratify_by: str | None = None
    """A column of the table to stratify by, instead of the label."""

    @pydantic.model_validator(mode="after")
    def _leaves_something_to_train(self) -> Split:
        if self.validation + self.test >= 1.0:
            raise ValueError(f"validation + test must be below 1, received {self.validation} + {self.test}")
        return self


class DataConfig(Options):
    source: str | None = None
    """A folder of class folders or of split folders, a table (CSV, Parquet, CoNLL), records (TFRecord: a
    file, a folder, `folder/*.tfrecord`), `tfds:NAME`, `datasets:OWNER/NAME` or a folder of its
    `save_to_disk`, any of these files at `gs://…` or `s3://…`, or a sample's name."""
    columns: Columns = Columns()
    split: Split = Split()
    max_bad: Share = 0.05
    """Largest share of unreadable examples that a run accepts; they are listed and left out."""
    memory: Annotated[float, pydantic.Field(ge=0.0)] = 2.0
    """Memory for decoded pictures, in GiB. What does not fit goes to the disk."""
    disk: Annotated[float, pydantic.Field(ge=0.0)] = 20.0
    """Disk for decoded pictures, in GiB, in `TLKIT_HOME`, freed when the process ends. When they do not fit
    there either, each epoch decodes them again."""
    duplicates: Literal["keep", "drop"] = "drop"
    """Texts: of several with the same words and the same label, `drop` keeps one, and takes out of train what
    is in validation or test too. Pictures are always kept."""
    conflicts: Literal["keep", "drop"] = "drop"
    """Texts: `drop` takes one that stands there with different labels out of train, wherever it stands."""
    merge_labels: bool = False
    """Merge labels that differ only in case and white space; the most frequent spelling is kept."""
