"""LoRA's adapters (Hu et al., arXiv:2106.09685): there while a stage trains them, then merged.

Private Keras API: `_kernel` and `_embeddings`, the weights that adapters stand beside, because the public
names give the sum of both; and `_flatten_layers`. Tried on Keras 3.12.0 and 3.15.1.
"""

from __future__ import annotations

import gc
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tlkit.config.plan import LoraPlan
from tlkit.errors import ConfigError, suggest
from tlkit.freezing import LayerGroup
from tlkit.plans import Stage
from tlkit.training.trainable import Trainable

KINDS = {"_kernel": "kernel", "_embeddings": "embeddings"}
# What layers of Keras, KerasHub and DINOv3 call them; Swin has one for query, key and value.
QUERY_OR_VALUE = re.compile(r"(^|[/_])(query|value)(_dense|_proj\w*)?$|(^|/)[qv]_proj$|qkv$")


@dataclass(frozen=True)
class Adapters:
    """What a stage learns beside the weights of a backbone.

    Attributes:
        plan: Rank, alpha and what was asked for.
        layers: Place among the layers of the backbone (see `layers_of`) → layer.
        values: Place and name of the matrix → float32 array; filled when the stage has ended.
        params: How many numbers they are.
        base: Fingerprint of the weights of the backbone, which stay as they are while the adapters learn.
    """

    plan: LoraPlan
    layers: Mapping[int, keras.layers.Layer]
    params: int
    base: str
    values: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)

    @property
    def alpha(self) -> float:
        return alpha_of(self.plan)

    def to_dict(self) -> dict[str, Any]:
        """What a run says about them."""
        targets = [layer.path for layer in self.layers.values()]
        return {"rank": self.plan.rank, "alpha": self.alpha, "params": self.params, "targets": targets}


@contextmanager
def adapted(run: Trainable, stage: Stage) -> Iterator[Adapters | None]:
    """Adapters beside the weights of the backbone, while the block trains a stage that has some.

    After the block they are merged: each weight is what it was and what was learned. To be entered before
    `apply_freeze`, which trains them and not what they stand beside.
    """
    if stage.adapters is None:
        yield None
        return
    layers = find_targets(layers_of(run.groups), stage.adapters, run.backbone)
    base = fingerprint_of(run.groups)
    with run.strategy.scope():
        attach(layers, stage.adapters, run.seed)
    adapters = Adapters(stage.adapters, layers, _size(layers), base)
    try:
        yield adapters
    finally:
        for place, layer in layers.items():
            adapters.values.update({(place, weight.name): weight.numpy() for weight in _pair(layer)})
        with run.strategy.scope():
            merge(layers.values())
        for layer in layers_of(run.groups):
            # As what stood beside an adapter is: Keras skips what is set to what it is.
            layer.trainable = False


def layers_of(groups: Sequence[LayerGroup]) -> tuple[keras.layers.Layer, ...]:
    """The layers of a backbone that hold weights, each once: one that is shared has one adapter."""
    return tuple({id(layer): layer for group in groups for layer in group.layers}.values())


def alpha_of(plan: LoraPlan) -> float:
    """Times this, and through the rank, what is learned is added."""
    return float(plan.rank) if plan.alpha is None else plan.alpha


def adapter_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The matrices of the adapters of a layer and of those inside it."""
    return [weight for inner in layer._flatten_layers() for weight in _pair(inner)]


def find_targets(
    layers: Sequence[keras.layers.Layer], plan: LoraPlan, backbone: str
) -> dict[int, keras.layers.Layer]:
    """The layers that a plan gives adapters, by their place among `layers`.

    Raises:
        ConfigError: There is none, a target names none, or one has no room for the rank.
    """
    if any(getattr(layer, "lora_enabled", False) for layer in layers):
        raise ConfigError(
            f"plan: {backbone!r} has adapters of LoRA already. Saving the model merges them; load it without."
        )
    able = {place: layer for place, layer in enumerate(layers) if _takes_adapter(layer)}
    if not able:
        raise ConfigError(
            f"plan: lora puts adapters beside Keras's dense, convolutional and embedding layers, and "
            f"{backbone!r} has none. Use --plan head, or --plan full where it can be trained."
        )
    return _automatic(able, plan.rank) if plan.targets == "auto" else _named(able, plan)


def _automatic(able: Mapping[int, keras.layers.Layer], rank: int) -> dict[int, keras.layers.Layer]:
    chosen = {place: layer for place, layer in able.items() if QUERY_OR_VALUE.search(layer.path)} or {
        place: layer for place, layer in able.items() if not isinstance(layer, keras.layers.Embedding)
    }
    wide = {place: layer for place, layer in chosen.items() if rank <= _full_rank(layer)}
    if not wide:
        most = max(map(_full_rank, chosen.values()), default=0)
        raise ConfigError(f"plan.rank: the widest layer has room for rank {most}, received {rank}.")
    return wide


def _named(able: Mapping[int, keras.layers.Layer], plan: LoraPlan) -> dict[int, keras.layers.Layer]:
    chosen: set[int] = set()
    for pattern in plan.targets:
        found = {place for place, layer in able.items() if re.search(pattern, layer.path)}
        if not found:
            names = dict.fromkeys(layer.path.rpartition("/")[2] for layer in able.values())
            raise ConfigError(
                f"plan.targets: no layer that takes an adapter has {pattern!r} in its path."
                f"{suggest(pattern, names)} A path is like {next(iter(able.values())).path!r}."
            )
        chosen |= found
    for place in sorted(chosen):
        if plan.rank > _full_rank(able[place]):
            raise ConfigError(
                f"plan.rank: {able[place].path!r} has room for rank {_full_rank(able[place])}, "
                f"received {plan.rank}. Lower it, or leave the layer out of plan.targets."
            )
    return {place: able[place] for place in sorted(chosen)}


def attach(layers: Mapping[int, keras.layers.Layer], plan: LoraPlan, seed: int) -> None:
    """Add adapters that change nothing yet. To be called in the strategy's scope, before `compile`."""
    for place, layer in layers.items():
        drawn = int(np.random.SeedSequence([seed, place]).generate_state(1)[0] >> 1)
        layer.enable_lora(
            plan.rank, lora_alpha=alpha_of(plan), a_initializer=keras.initializers.HeUniform(seed=drawn)
        )


def merge(layers: Any) -> None:
    """Add what adapters learned to the weights that they stand beside, and take the adapters away."""
    # Keras collects garbage after each variable that is deleted: of all objects of the process, if we let it.
    gc.freeze()
    try:
        for layer in layers:
            first, second = _pair(layer)
            scale = layer.lora_alpha / layer.lora_rank
            base = _base(layer)
            base.assign(base + scale * keras.ops.matmul(first, second))
            for name in (first.name, second.name):
                delattr(layer, name)
            layer.lora_enabled = False
            layer.lora_rank = layer.lora_alpha = None  # else its config would ask for adapters
    finally:
        gc.unfreeze()


def put_adapters(
    groups: Sequence[LayerGroup], plan: LoraPlan, values: Mapping[tuple[int, str], np.ndarray]
) -> None:
    """Merge what another process learned (see `Adapters.values`) into the weights of a backbone.

    Raises:
        IndexError, KeyError, ValueError: It was another backbone.
    """
    known = layers_of(groups)
    layers = {place: known[place] for place in sorted({place for place, _ in values})}
    attach(layers, plan, seed=0)
    for place, layer in layers.items():
        for weight in _pair(layer):
            weight.assign(values[place, weight.name])
    merge(layers.values())


def fingerprint_of(groups: Sequence[LayerGroup]) -> str:
    """One hash of all weights of a backbone: adapters are of use beside those that they learned beside."""
    digest = hashlib.sha256()
    for layer in layers_of(groups):
        for weight in layer.weights:
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def _takes_adapter(layer: keras.layers.Layer) -> bool:
    """What Keras itself refuses is left out: constrained and quantized weights."""
    kind = _kind(layer)
    return (
        hasattr(layer, "enable_lora")
        and kind is not None
        and getattr(layer, f"{KINDS[kind]}_constraint", None) is None
        and getattr(layer, "quantization_mode", None) is None
    )


def _kind(layer: keras.layers.Layer) -> str | None:
    return next((kind for kind in KINDS if getattr(layer, kind, None) is not None), None)


def _base(layer: keras.layers.Layer) -> keras.Variable:
    return getattr(layer, _kind(layer) or "")


def _pair(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The two matrices of a layer's adapter; none where it has no adapter."""
    if not getattr(layer, "lora_enabled", False):
        return []
    name = KINDS[_kind(layer) or ""]
    return [getattr(layer, f"lora_{name}_a"), getattr(layer, f"lora_{name}_b")]


def _full_rank(layer: keras.layers.Layer) -> int:
    shape: tuple[int, ...] = tuple(_base(layer).shape)
    return min(math.prod(shape[:-1]), shape[-1])


def _size(layers: Mapping[int, keras.layers.Layer]) -> int:
    return sum(math.prod(weight.shape) for layer in layers.values() for weight in _pair(layer))
