"""SavedModels as backbones: from what a source holds to a Keras model, and to the zoo entry of one."""

from __future__ import annotations

from pathlib import Path

import keras

from tlkit.backbones.backbone import Backbone
from tlkit.backbones.features import image_features
from tlkit.backbones.saved_model_describe import (
    MASK_NAMES,
    describe_input,
    notes_of,
    picture_size,
    token_inputs,
)
from tlkit.backbones.saved_model_fetch import fetch_saved_model
from tlkit.backbones.saved_model_layer import SavedModelLayer
from tlkit.backbones.saved_model_open import OpenedSavedModel, open_saved_model
from tlkit.backbones.saved_model_outputs import (
    choose_output,
    choose_text_outputs,
    describe_tensors,
    require_features,
)
from tlkit.errors import ConfigError
from tlkit.zoo.entry import ImageInput, TensorInput, TextInput, ZooEntry
from tlkit.zoo.fetch import expected_hash_at
from tlkit.zoo.saved_model_files import FAMILY
from tlkit.zoo.source import HubSource, Source

LAYER = "saved_model"  # also the folder in a run
PREPROCESSING_LAYER = "saved_model_preprocessing"


def load_saved_model(entry: ZooEntry, *, image_size: int | None = None, trust: bool = False) -> Backbone:
    """Load the SavedModel of an entry as a backbone, in the scope of the strategy that will train it.

    Pictures: one tensor to one tensor, a feature map (N, h, w, C) or vectors (N, C); of tokens, their mean.
    Texts: a dict with `text`, strings (N,), or with tokens, to a dict with `sequence`, `pooled` or both.
    Others: a dict to a dict, by the names in the SavedModel. The backbone's entry has the hash of what was
    loaded.

    Raises FetchError (cannot be had, refused), ConfigError (does not fit the entry) and StorageError.
    """
    folder = fetch_saved_model(entry)
    opened = open_saved_model(folder, _pin(entry, folder), trust=trust)
    entry = _pinned(entry, opened.sha256)
    takes = entry.input
    if isinstance(takes, TextInput):
        return _text_backbone(entry, takes, opened, trust)
    model = (
        _image_model(entry, takes, opened, image_size)
        if isinstance(takes, ImageInput)
        else _tensor_model(entry, opened)
    )
    features = image_features(model) if isinstance(takes, ImageInput) else dict(model.output)
    return Backbone(entry.model_copy(update={"params": model.count_params()}), model, features)


def describe_saved_model(source: Source, name: str, *, trust: bool = False) -> ZooEntry:
    """The entry of a SavedModel, as far as it tells: what it takes, its parameters and its hash.

    Pictures are taken to be wanted in 0 to 1, as TF Hub's are; the entry may say otherwise. The licence is
    not in a SavedModel. Raises as `load_saved_model` does.
    """
    entry = ZooEntry(
        name=name,
        modality="other",
        family=FAMILY,
        source=source,
        input=TensorInput(shapes={"unknown": (None,)}, dtypes={"unknown": "float32"}),
        layer_groups={LAYER: LAYER},
        params=1,
        license="not stated",
    )
    folder = fetch_saved_model(entry)
    opened = open_saved_model(folder, _pin(entry, folder), trust=trust)
    modality, takes = describe_input(opened)
    entry = entry.model_copy(update={"modality": modality, "input": takes})
    n_params = sum(int(each.shape.num_elements()) for each in opened.endpoint.variables)
    if isinstance(takes, ImageInput):
        choose_output(entry, opened.endpoint)  # now, not when it is used
    return _pinned(
        entry.model_copy(update={"params": n_params, "notes": notes_of(opened, takes)}), opened.sha256
    )


def _image_model(
    entry: ZooEntry, takes: ImageInput, opened: OpenedSavedModel, image_size: int | None
) -> keras.Model:
    endpoint = opened.endpoint
    fixed = picture_size(endpoint)
    if fixed is False:
        raise ConfigError(
            f"The SavedModel of {entry.name!r} does not take pictures: {describe_tensors(endpoint)}"
        )
    size = image_size or takes.image_size
    if fixed is not None and size != fixed:
        raise ConfigError(
            f"image_size {size} does not fit {entry.name!r}: its SavedModel takes {fixed} pixels only"
        )
    name = choose_output(entry, endpoint)
    inputs = keras.Input((size, size, 3), name="pictures")
    given = SavedModelLayer(opened, outputs={"features": name}, name=LAYER)(inputs)["features"]
    require_features(entry, endpoint, name, len(given.shape))  # now that a trial has told how many there are
    if len(given.shape) == 3:  # tokens (N, T, C)
        given = keras.ops.mean(given, axis=1)
    return keras.Model(inputs, given, name=entry.name)


def _text_backbone(entry: ZooEntry, takes: TextInput, opened: OpenedSavedModel, trust: bool) -> Backbone:
    features = choose_text_outputs(entry, opened.endpoint)
    before: OpenedSavedModel | None = None
    if takes.preprocessing is not None:
        source = takes.preprocessing
        before = open_saved_model(fetch_saved_model(source), source.sha256, trust=trust)
        takes = takes.model_copy(update={"preprocessing": _with_hash(source, before.sha256)})
        entry = entry.model_copy(update={"input": takes})

    def build(chosen: dict[str, str]) -> Backbone:
        layer = SavedModelLayer(opened, outputs=chosen, name=LAYER)
        if takes.tokenizer.kind != "strings":
            model = _token_model(entry, layer)
        elif before is None:
            text = keras.Input((), dtype="string", name="text")
            model = keras.Model({"text": text}, layer(text), name=entry.name)
        else:
            model = _preprocessed_model(entry, layer, SavedModelLayer(before, name=PREPROCESSING_LAYER))
        sized = entry.model_copy(update={"params": model.count_params()})
        return Backbone(sized, model, dict(model.output), make_bare)

    def make_bare() -> Backbone:
        return build({name: output for name, output in features.items() if name != "pooled"})

    return build(features)


def _token_model(entry: ZooEntry, layer: SavedModelLayer) -> keras.Model:
    names = token_inputs(layer.opened.endpoint)
    if names is None:
        raise ConfigError(
            f"The SavedModel of {entry.name!r} takes no tokens: {describe_tensors(layer.opened.endpoint)}"
        )
    inputs = {own: keras.Input((None,), dtype="int32", name=own) for own in names}
    return keras.Model(inputs, layer({name: inputs[own] for own, name in names.items()}), name=entry.name)


def _preprocessed_model(entry: ZooEntry, layer: SavedModelLayer, before: SavedModelLayer) -> keras.Model:
    needed = list(layer.opened.endpoint.inputs)
    text = keras.Input((), dtype="string", name="text")
    tokens = before(text)
    if any(name not in tokens for name in needed):
        raise ConfigError(
            f"The preprocessing of {entry.name!r} gives {', '.join(tokens)}; its SavedModel takes "
            f"{', '.join(needed)}"
        )
    outputs = dict(layer({name: tokens[name] for name in needed}))
    mask = next((tokens[name] for name in MASK_NAMES if name in tokens), None)
    if mask is not None and "sequence" in outputs:
        outputs["mask"] = mask
    return keras.Model({"text": text}, outputs, name=entry.name)


def _tensor_model(entry: ZooEntry, opened: OpenedSavedModel) -> keras.Model:
    endpoint = opened.endpoint
    inputs = {
        name: keras.Input(batch_shape=(None, *(spec.shape or (None,))[1:]), dtype=spec.dtype.name, name=name)
        for name, spec in endpoint.inputs.items()
    }
    return keras.Model(inputs, SavedModelLayer(opened, name=LAYER)(inputs), name=entry.name)


def _pinned(entry: ZooEntry, sha256: str) -> ZooEntry:
    """The entry with the hash of what was loaded, where its source is for SavedModels alone."""
    if not isinstance(entry.source, HubSource):
        return entry
    return entry.model_copy(update={"source": _with_hash(entry.source, sha256)})


def _with_hash(source: HubSource, sha256: str) -> HubSource:
    return source.model_copy(update={"sha256": sha256})


def _pin(entry: ZooEntry, folder: Path) -> str | None:
    """The hash that was checked, or is named, for the SavedModel in `folder`."""
    if isinstance(entry.source, HubSource):
        return entry.source.sha256
    return expected_hash_at(entry, folder)
