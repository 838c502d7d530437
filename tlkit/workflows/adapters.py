"""What a LoRA run learned as one small file: adapters, head, and what it takes to answer with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tlkit
from tlkit.backbones.checked_keras import first_line, load_checked_config
from tlkit.config import RunConfig, dump, load_config
from tlkit.config.plan import LoraPlan
from tlkit.errors import ConfigError, FetchError
from tlkit.freezing import group_layers
from tlkit.results import RunFolder, writing
from tlkit.training import Adapters
from tlkit.training.adapters import fingerprint_of, put_adapters
from tlkit.workflows.examples import load_preprocessing
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.prepare import Prepared, find_backbone, find_entry, run_folder
from tlkit.workflows.run import Run
from tlkit.zoo import open_copy

FORMAT = "tlkit adapters 1"


@dataclass(frozen=True)
class Contents:
    """What is in such a file.

    Attributes:
        tensors: `adapters/<place>/<path of the layer>/<name>` and `head/<number>/<path>` → array.
        config: Of the run.
        model: The merged model's layers, as Keras writes them to JSON; without weights.
        classes: Names in the order of the scores.
        base: Fingerprint of the weights that the adapters stand beside.
        uses_pooler: Whether the head looks at the backbone's own summary of an example.
    """

    tensors: Mapping[str, np.ndarray]
    config: RunConfig
    model: Any
    classes: tuple[str, ...] | None
    base: str
    uses_pooler: bool


def save_adapters(prepared: Prepared, adapters: Adapters, path: Path) -> None:
    """Write what a stage of LoRA has learned, once it is merged.

    Raises:
        StorageError: It cannot be written.
    """
    from safetensors.numpy import save

    run = prepared.trainable
    tensors = {
        f"adapters/{place}/{adapters.layers[place].path}/{name}": value
        for (place, name), value in adapters.values.items()
    }
    for number, weight in enumerate(_head_weights(run.model)):
        tensors[f"head/{number}/{weight.path}"] = weight.numpy()
    config = prepared.config.model_copy(update={"trust": False})
    metadata = {
        "format": FORMAT,
        "tlkit": tlkit.__version__,
        "backbone": prepared.entry.name,
        "config": json.dumps(dump(config)),
        "model": keras.Model(run.model.input, run.model.output, name=run.model.name).to_json(),
        "classes": json.dumps(prepared.dataset.manifest.classes),
        "base": adapters.base,
        "uses_pooler": json.dumps(run.head.uses_pooler),
        **{key: json.dumps(value) for key, value in adapters.to_dict().items()},
    }
    data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
    with writing(path, len(data)) as temporary:
        temporary.write_bytes(data)  # safetensors has an error of its own for a disk that is full


def load_adapters(path: Path, custom_objects: Mapping[str, Any] | None = None, *, trust: bool = False) -> Run:
    """The run that such a file is of, put together from a backbone that is loaded anew.

    Args:
        path: What a LoRA run left as `adapters.safetensors`.
        custom_objects: The user's own Keras classes that the model's head is made of.
        trust: As of `load_run`.

    Raises:
        ConfigError: The backbone has other weights than the adapters had beside them, or came from Python.
        FetchError: The file is damaged, or holds something else.
    """
    with open_copy(path, None) as copy:
        contents = _read(copy)
        config = contents.config.model_copy(update={"trust": trust})
        entry = find_entry(config)
        preprocessing = load_preprocessing(config, entry, run_folder(config))
        backbone = find_backbone(config, entry, preprocessing, PythonObjects())
        backbone = backbone.for_head(contents.uses_pooler)
        groups = group_layers(backbone)
        if fingerprint_of(groups) != contents.base:
            raise ConfigError(
                f"{path} was trained beside other weights than {config.backbone!r} has here. "
                "Use the backbone of that name and version that the run had."
            )
        model = load_checked_config(contents.model, str(copy), custom_objects)
        try:
            assert isinstance(config.plan, LoraPlan)
            put_adapters(groups, config.plan, _numbered(contents.tensors, "adapters"))
            _body(model).set_weights(backbone.model.get_weights())
            head = _numbered(contents.tensors, "head").values()
            for value, weight in zip(head, _head_weights(model), strict=True):
                weight.assign(value)
        except (ValueError, KeyError, IndexError, StopIteration) as error:
            raise FetchError(f"{path} does not fit {config.backbone!r}: {first_line(error)}") from error
    run = Run(path, config, backbone.entry, contents.classes, custom_objects or {}, trust).holding(model)
    run.__dict__["preprocessing"] = preprocessing  # as `holding` does: there is no folder to read it from
    return run


def copy_adapters(run: Run, to: Path) -> Path:
    """Copy the adapters of a run, whole or not at all.

    Raises:
        ConfigError: The run has none.
        StorageError: `to` cannot be written.
    """
    source = run.path if run.path.is_file() else RunFolder(run.path).adapters
    if not source.is_file():
        raise ConfigError(f"{run.path} has no adapters: only a run of --plan lora leaves them.")
    with writing(to, source.stat().st_size) as temporary:
        temporary.write_bytes(source.read_bytes())
    return to


def _read(path: Path) -> Contents:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise FetchError(f"{path} is not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ConfigError(
            f"{path} holds no adapters that this version reads: its format is {metadata.get('format')!r}, "
            f"not {FORMAT!r}."
        )
    try:
        config = load_config(json.loads(metadata["config"])).config
        classes = json.loads(metadata["classes"])
        if not isinstance(config.plan, LoraPlan):
            raise ValueError("the config has no plan lora")
        return Contents(
            tensors=tensors,
            config=config,
            model=json.loads(metadata["model"]),
            classes=None if classes is None else tuple(map(str, classes)),
            base=metadata["base"],
            uses_pooler=bool(json.loads(metadata["uses_pooler"])),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise FetchError(f"{path} is damaged: {first_line(error)}") from error


def _numbered(tensors: Mapping[str, np.ndarray], kind: str) -> dict[tuple[int, str], np.ndarray]:
    """Number and last name → array, by number."""
    parts = [(name.split("/"), value) for name, value in tensors.items()]
    found = {(int(path[1]), path[-1]): value for path, value in parts if path[0] == kind}
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _body(model: keras.Model) -> keras.Model:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def _head_weights(model: keras.Model) -> list[keras.Variable]:
    body = {id(weight) for weight in _body(model).weights}
    return [weight for weight in model.weights if id(weight) not in body]
