"""Which outputs of a SavedModel are the features of a backbone, and how its tensors are put in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlkit.backbones.saved_model_endpoint import Endpoint
from tlkit.errors import ConfigError
from tlkit.zoo.entry import ZooEntry
from tlkit.zoo.source import HubSource

VECTORS = ("default", "pooled_output", "pooled", "sentence_embedding", "output")
SEQUENCES = ("sequence_output", "sequence", "last_hidden_state")
RANKS = {2: "vectors (N, C)", 3: "tokens (N, T, C)", 4: "a map (N, h, w, C)"}
_HOW = "Name one: source.output in the entry, or hub:…#output=NAME"


def choose_output(entry: ZooEntry, endpoint: Endpoint) -> str:
    """The output that a backbone for pictures gives. Raises ConfigError where none can be features, or
    several can and none was named."""
    wanted = _wanted(entry, endpoint)
    if wanted is not None:
        require_features(entry, endpoint, wanted, endpoint.outputs[wanted].shape.rank)
        return wanted
    found = {
        name: spec
        for name, spec in endpoint.outputs.items()
        if spec.dtype.is_floating and spec.shape.rank in (None, *RANKS)
    }
    if not found:
        raise ConfigError(
            f"The SavedModel of {entry.name!r} gives nothing that can be features, which are floating-point "
            f"{_choice(RANKS.values())}: {describe_tensors(endpoint)}"
        )
    if len(found) == 1 or "default" in found:
        return "default" if "default" in found else next(iter(found))
    for rank in (4, 2):
        of_rank = [name for name, spec in found.items() if spec.shape.rank == rank]
        if len(of_rank) == 1:
            return of_rank[0]
    raise ConfigError(
        f"The SavedModel of {entry.name!r} gives several outputs: {describe_tensors(endpoint)}. {_HOW}"
    )


def choose_text_outputs(entry: ZooEntry, endpoint: Endpoint) -> dict[str, str]:
    """`pooled` and `sequence`, where the SavedModel gives them. Raises ConfigError where it gives neither."""
    wanted = _wanted(entry, endpoint)
    if wanted is not None:
        rank = endpoint.outputs[wanted].shape.rank
        require_features(entry, endpoint, wanted, rank, among=(2, 3))
        return {"sequence" if rank == 3 else "pooled": wanted}
    floats = {name: spec for name, spec in endpoint.outputs.items() if spec.dtype.is_floating}
    by_rank = {rank: [name for name, spec in floats.items() if spec.shape.rank == rank] for rank in (2, 3)}
    features = {"sequence": _one_of(SEQUENCES, by_rank[3]), "pooled": _one_of(VECTORS, by_rank[2])}
    chosen = {feature: name for feature, name in features.items() if name is not None}
    if not chosen:
        raise ConfigError(
            f"The SavedModel of {entry.name!r} gives no vectors of texts that are told apart: "
            f"{describe_tensors(endpoint)}. {_HOW}"
        )
    return chosen


def require_features(
    entry: ZooEntry,
    endpoint: Endpoint,
    name: str,
    rank: int | None,
    among: tuple[int, ...] = tuple(RANKS),
) -> None:
    """Raise ConfigError for an output that cannot be features: of this rank (None: not told yet), or of its
    dtype."""
    spec = endpoint.outputs[name]
    if not spec.dtype.is_floating or rank not in (None, *among):
        raise ConfigError(
            f"The output {name!r} of the SavedModel of {entry.name!r} is {_in_words(spec)}, which cannot be "
            f"features: they are floating-point {_choice(RANKS[each] for each in among)}"
        )


def describe_tensors(endpoint: Endpoint) -> str:
    """Inputs and outputs with their dtypes and shapes, and what kind they are where they are not dense."""

    def line(specs: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {_in_words(spec)}" for name, spec in specs.items())

    return f"{line(endpoint.inputs)} → {line({**endpoint.outputs, **endpoint.not_dense})}"


def _wanted(entry: ZooEntry, endpoint: Endpoint) -> str | None:
    """The output that the source names, which has to be one of the dense ones."""
    wanted = entry.source.output if isinstance(entry.source, HubSource) else None
    if wanted is None or wanted in endpoint.outputs:
        return wanted
    if wanted in endpoint.not_dense:
        raise ConfigError(
            f"The output {wanted!r} of the SavedModel of {entry.name!r} is "
            f"{_in_words(endpoint.not_dense[wanted])}: features are dense tensors"
        )
    raise ConfigError(
        f"The SavedModel of {entry.name!r} has no output {wanted!r}. It has: {describe_tensors(endpoint)}"
    )


def _in_words(spec: Any) -> str:
    kind = type(spec).__name__.removesuffix("Spec").removesuffix("Tensor").lower()
    dtype, shape = getattr(spec, "dtype", None), getattr(spec, "shape", None)
    told = [kind, dtype.name if dtype is not None else ""]
    sides = str(list(shape)) if shape is not None and shape.rank is not None else ""
    return " ".join(each for each in told if each) + sides


def _choice(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


def _one_of(usual: tuple[str, ...], names: list[str]) -> str | None:
    known = [name for name in usual if name in names]
    if known:
        return known[0]
    return names[0] if len(names) == 1 else None
