"""What a SavedModel takes, told from its inputs: pictures, texts, tokens, or other tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tensorflow as tf

from tlkit.backbones.saved_model_endpoint import Endpoint
from tlkit.backbones.saved_model_open import OpenedSavedModel
from tlkit.errors import ConfigError
from tlkit.zoo.entry import ImageInput, Scaling, TensorInput, TextInput, Tokenizer

USUAL_SIZE = 224
LONGEST = 512  # tokens, of a BERT
UNLIMITED = 8192  # tokens: the most that a config can ask for
TOKEN_NAMES = ("input_word_ids", "token_ids", "input_ids")
MASK_NAMES = ("input_mask", "padding_mask", "attention_mask")
SEGMENT_NAMES = ("input_type_ids", "segment_ids", "token_type_ids")
VOCABULARIES = ("vocab.txt", "vocabulary.txt")

Modality = Literal["image", "text", "other"]


def describe_input(opened: OpenedSavedModel) -> tuple[Modality, ImageInput | TextInput | TensorInput]:
    """The modality of a SavedModel, and its entry's `input`. Raises ConfigError for a fixed batch size
    and for a shape that is not told."""
    endpoint = opened.endpoint
    _require_open_batch(endpoint)
    size = picture_size(endpoint)
    if size is not False:
        spec = next(iter(endpoint.inputs.values()))
        std = 1.0 if spec.dtype.is_integer else 255.0
        scaling = Scaling(std=(std, std, std))
        least = size or 32
        return "image", ImageInput(image_size=size or USUAL_SIZE, min_image_size=least, scaling=scaling)
    specs = list(endpoint.inputs.values())
    if len(specs) == 1 and specs[0].dtype == tf.string and (specs[0].shape.rank or 1) <= 2:
        return "text", TextInput(sequence_length=UNLIMITED, tokenizer=Tokenizer(kind="strings"))
    tokens = token_inputs(endpoint)
    vocabulary = _vocabulary(opened.folder)
    if tokens is not None and vocabulary is not None:
        length = specs[0].shape[1]
        # A length that is fixed is padded to, which is what a backbone without a mask asks for.
        return "text", TextInput(
            sequence_length=length or LONGEST,
            tokenizer=Tokenizer(
                kind="wordpiece",
                files=(vocabulary,),
                lowercase=_lowercase(opened),
                strip_accents=_lowercase(opened),
            ),
            mask=length is None and "padding_mask" in tokens,
            segments="segment_ids" in tokens,
        )
    for name, spec in endpoint.inputs.items():
        if spec.shape.rank is None:
            raise ConfigError(
                f"The SavedModel does not say what shape its input {name!r} has ({spec.dtype.name}): save it "
                "with one, such as tf.TensorSpec((None, 224, 224, 3))"
            )
    return "other", TensorInput(
        shapes={name: tuple(spec.shape) for name, spec in endpoint.inputs.items()},
        dtypes={name: spec.dtype.name for name, spec in endpoint.inputs.items()},
    )


def notes_of(opened: OpenedSavedModel, takes: ImageInput | TextInput | TensorInput) -> tuple[str, ...]:
    """What had to be assumed, and what a SavedModel cannot do."""
    notes = []
    if isinstance(takes, ImageInput):
        most = round(255 / takes.scaling.std[0])
        notes.append(f"scaling: the SavedModel does not say which values it takes: 0 to {most} is assumed")
        if picture_size(opened.endpoint) is None:
            notes.append(f"image_size: it takes pictures of any size: {USUAL_SIZE} pixels are assumed")
    if not opened.has_objects:
        notes.append("it is in the format of TensorFlow 1: its features can be used, it cannot be fine-tuned")
    elif not opened.fine_tunes:
        notes.append("it has no trainable variables: its features can be used, it cannot be fine-tuned")
    return tuple(notes)


def picture_size(endpoint: Endpoint) -> int | Literal[False] | None:
    """The side of the square pictures that a SavedModel takes, None for any size; False: it takes none."""
    specs = list(endpoint.inputs.values())
    if len(specs) != 1 or specs[0].shape.rank != 4 or specs[0].shape[3] != 3:
        return False
    spec = specs[0]
    if not (spec.dtype.is_floating or spec.dtype == tf.uint8) or spec.shape[1] != spec.shape[2]:
        return False
    return None if spec.shape[1] is None else int(spec.shape[1])


def token_inputs(endpoint: Endpoint) -> dict[str, str] | None:
    """The SavedModel's own names for `token_ids`, `padding_mask` and `segment_ids`; None: it takes others."""
    names = {
        "token_ids": _first(TOKEN_NAMES, endpoint),
        "padding_mask": _first(MASK_NAMES, endpoint),
        "segment_ids": _first(SEGMENT_NAMES, endpoint),
    }
    found = {own: name for own, name in names.items() if name is not None}
    integers = all(spec.dtype.is_integer and spec.shape.rank == 2 for spec in endpoint.inputs.values())
    if "token_ids" not in found or len(found) < len(endpoint.inputs) or not integers:
        return None
    return found


def _require_open_batch(endpoint: Endpoint) -> None:
    for name, spec in endpoint.inputs.items():
        if spec.shape.rank and spec.shape[0] is not None:
            raise ConfigError(
                f"The SavedModel takes batches of {spec.shape[0]} only ({name} {list(spec.shape)}): "
                "export it with an open batch size"
            )


def _first(names: tuple[str, ...], endpoint: Endpoint) -> str | None:
    return next((name for name in names if name in endpoint.inputs), None)


def _vocabulary(folder: Path) -> str | None:
    """The name of the vocabulary among the SavedModel's assets."""
    return next((name for name in VOCABULARIES if (folder / "assets" / name).is_file()), None)


def _lowercase(opened: OpenedSavedModel) -> bool:
    """TF Hub's BERT models tell in a variable whether their texts were in lower case."""
    told = getattr(opened.endpoint.owner, "do_lower_case", None)
    return True if told is None else bool(tf.convert_to_tensor(told))
