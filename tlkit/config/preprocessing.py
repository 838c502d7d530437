"""From raw bytes or strings to model inputs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from tlkit.config.augment import Augment, parse_augment
from tlkit.config.base import Options
from tlkit.config.scaling import parse_scaling
from tlkit.config.text import LongTexts, NltkStep, Normalization, parse_nltk
from tlkit.zoo.entry import Scaling


class PreprocessingConfig(Options):
    image_size: Annotated[int, pydantic.Field(ge=1, le=4096)] | None = None
    """Pictures: side of the square model input, in pixels. None: the backbone's own size, or less where that
    would blow the pictures up more than 8 times."""
    resize: Literal["stretch", "crop", "pad"] | None = None
    """Pictures: how one becomes square: stretched, centre-cropped, or padded. None: as the backbone's zoo
    entry says, which mostly is stretched."""
    scaling: Scaling | None = None
    """Pictures: how they are scaled for the backbone: `raw` (0 to 255), `unit` (0 to 1), `symmetric` (−1 to
    1), `imagenet` (its mean and deviation), `caffe` (blue first, its mean), or `{mean, std, order}`. None: as
    the backbone's zoo entry says."""
    augment: Augment = "default"
    """A policy's name, `none`, or a list of augmentations. Only training examples are augmented."""
    sequence_length: Annotated[int, pydantic.Field(ge=8, le=8192)] | None = None
    """Texts: most tokens of one text, special tokens included. None: enough for 95 % of the training texts,
    but at most 128 or what the backbone takes."""
    long_texts: LongTexts = "head"
    """Texts: what is kept of one that is too long: its head, its tail, half of each (`head_tail`), or all of
    it in overlapping windows whose outputs are averaged."""
    max_windows: Annotated[int, pydantic.Field(ge=1)] = 16
    """Texts: most windows of one text, with `long_texts: windows`; what is beyond them is cut."""
    normalize: Normalization = Normalization()
    """Texts: what happens to a string inside the graph."""
    nltk: tuple[NltkStep, ...] = ()
    """Texts: NLTK steps before the graph. No SavedModel can hold them, so whoever calls it must run them."""
    bucketing: bool = True
    """Texts: train on batches of like length. Without, every batch is padded to its longest text."""

    @pydantic.field_validator("augment", mode="before")
    @classmethod
    def _parse_augment(cls, value: Any) -> Any:
        return parse_augment(value)

    @pydantic.field_validator("scaling", mode="before")
    @classmethod
    def _parse_scaling(cls, value: Any) -> Any:
        return parse_scaling(value)

    @pydantic.field_validator("nltk", mode="before")
    @classmethod
    def _parse_nltk(cls, value: Any) -> Any:
        return parse_nltk(value)
