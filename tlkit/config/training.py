"""The optimizer, its rates and schedule, and when a stage ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from tlkit.config.base import Options
from tlkit.config.plan import Decay, Epochs, Rate, Schedule

WEIGHT_DECAY = 0.004
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h)")


class ClipConfig(Options):
    """Clipping of the gradient, after it was summed over the replicas."""

    by: Literal["global_norm", "norm", "value"] = "global_norm"
    """What is limited: the norm of the whole gradient, that of each weight's gradient, or each number."""
    limit: Annotated[float, pydantic.Field(gt=0.0)] = 1.0
    """The largest norm, or the largest absolute value."""


class MixConfig(Options):
    """Each picture is mixed with another one of its batch, and their targets likewise. With both kinds, each
    picture has one of them, as often the one as the other."""

    mixup: Annotated[float, pydantic.Field(gt=0.0)] | None = None
    """Mixup (Zhang et al., arXiv:1710.09412): pictures are averaged, with shares from Beta(α, α) of this α;
    0.2 is usual."""
    cutmix: Annotated[float, pydantic.Field(gt=0.0)] | None = None
    """CutMix (Yun et al., arXiv:1905.04899): a rectangle is replaced, whose area is from Beta(α, α); 1.0 is
    usual."""
    probability: Annotated[float, pydantic.Field(gt=0.0, le=1.0)] = 1.0
    """Share of the pictures that are mixed."""

    @pydantic.model_validator(mode="after")
    def _mixes_something(self) -> MixConfig:
        if self.mixup is None and self.cutmix is None:
            raise ValueError("mix needs mixup, cutmix or both, as in {mixup: 0.2, cutmix: 1.0}")
        return self


class TrainingConfig(Options):
    epochs: Epochs | None = None
    """Epochs of every stage. None: what the plan says."""
    global_batch_size: Literal["auto"] | Annotated[int, pydantic.Field(ge=1)] = "auto"
    """Examples per step over all replicas. `auto`: 32, or less where memory or the data ask for it."""
    accumulate: Annotated[int, pydantic.Field(ge=1)] = 1
    """Batches whose gradients make one update: it learns from `accumulate` × `global_batch_size` examples and
    needs the memory of one batch. Schedules, averages and the progress count updates. BatchNorm that trains
    sees one batch at a time, and the pairs of `embed` are compared within one."""
    batch_tokens: Annotated[int, pydantic.Field(ge=16)] | None = None
    """Texts: tokens per step over all replicas, padding included, instead of a number of examples."""
    learning_rate: Rate | None = None
    """Peak rate of every stage. None: what suits the kind of backbone (see `recipe.py`), with AdamW."""
    layer_decay: Decay | None = None
    """Each layer group learns at this multiple of the rate of the group above it; the head at the full rate.
    None: what the plan says, else 1."""
    learning_rates: dict[str, Rate] = {}
    """Peak rates of single layer groups, by name; `head` is one, too. They win over `layer_decay`."""
    optimizer: Literal["adamw", "adam", "sgd", "lion", "adafactor", "muon"] = "adamw"
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101), Adam (arXiv:1412.6980), SGD with Nesterov momentum,
    Lion (arXiv:2302.06675; it wants a rate 3 to 10 times lower), Adafactor (arXiv:1804.04235), or Muon
    (arXiv:2502.16982) for the matrices inside the backbone and AdamW for the rest."""
    weight_decay: Annotated[float, pydantic.Field(ge=0.0)] = WEIGHT_DECAY
    """Decoupled weight decay, not for `adam`; biases and normalisation scales are left out."""
    momentum: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] | None = None
    """Of `sgd` alone. None: 0.9."""
    clip: ClipConfig | None = ClipConfig()
    ema: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] | None = None
    """Momentum of a running average of the trained weights, by step (0.99: over about 100 steps). Validation,
    checkpoints and the end of a stage use the average; training itself goes on with the weights. What
    BatchNorm counts is not averaged."""
    schedule: Schedule | None = None
    """What the rate does over a stage. After the warm-up it falls to zero along a half `cosine` or
    `linear`ly, stays (`constant`), or is multiplied by 0.3 after two epochs without a better value
    (`plateau`). `one_cycle` (arXiv:1708.07120) and `slanted_triangular` (arXiv:1801.06146) rise and fall as
    in their papers, the rate alone. None: what the plan says, else `cosine`."""
    warmup: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] | None = None
    """Share of a stage's steps in which the rate rises. None: 0.1; for `one_cycle` 0.25."""
    mix: MixConfig | None = None
    """Pictures: mixup and CutMix. Training metrics are those of the label with the larger part; validation is
    not mixed, and features are not stored."""
    patience: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Epochs without a better monitored value after which a stage ends early, with the weights of its best
    epoch. None: a stage runs to its end, because a cosine schedule does its best work there; of a backbone
    that is trained from scratch 3, because it soon learns the examples by heart."""
    restore_best: bool = False
    """End every stage with the weights of its best epoch instead of its last, also without `patience`."""
    save_every: Annotated[int, pydantic.Field(ge=1)] | str | None = "10min"
    """How often a run is saved within an epoch, so that `--resume` goes on from there: after so many steps,
    or after a time such as `90s`, `10min` or `1h`. None: at the end of epochs alone, as in any case."""
    gradient_health: bool = True
    """Measure gradients, updates and activations of every layer group once an epoch, on one batch, and say
    what stands out. Training is not changed by it."""

    @pydantic.field_validator("save_every")
    @classmethod
    def _is_steps_or_time(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str) and (_TIME.fullmatch(value) is None or not _seconds(value)):
            raise ValueError(
                f"should be a number of steps, or a time such as 90s, 10min or 1h, received {value!r}"
            )
        return value

    @property
    def save_steps(self) -> int | None:
        """Steps between two saves; None where they are not counted."""
        return self.save_every if isinstance(self.save_every, int) else None

    @property
    def save_seconds(self) -> float | None:
        """Seconds between two saves; None where they are not measured."""
        return _seconds(self.save_every) if isinstance(self.save_every, str) else None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_older(cls, tree: Any) -> Any:
        """The keys of tlkit 0.1, which the config of every run of it has, in today's words."""
        if not isinstance(tree, Mapping) or not tree.keys() & {"clip_norm", "reduce_on_plateau"}:
            return tree
        tree = dict(tree)
        if "clip_norm" in tree:
            limit = tree.pop("clip_norm")
            tree.setdefault("clip", None if limit is None else {"by": "global_norm", "limit": limit})
        if tree.pop("reduce_on_plateau", False):
            tree["schedule"] = "plateau"
        if tree.get("optimizer", "adamw") != "sgd":
            tree.pop("momentum", None)
        return tree

    @pydantic.model_validator(mode="after")
    def _options_fit_the_optimizer(self) -> TrainingConfig:
        if self.momentum is not None and self.optimizer != "sgd":
            raise ValueError(f"momentum is an option of optimizer: sgd, received optimizer: {self.optimizer}")
        if self.optimizer == "adam" and self.weight_decay not in (0.0, WEIGHT_DECAY):
            raise ValueError("weight_decay is not an option of optimizer: adam; adamw is Adam with it")
        return self


def _seconds(time: str) -> float:
    match = _TIME.fullmatch(time)
    return 0.0 if match is None else float(match[1]) * _UNITS[match[2]]
