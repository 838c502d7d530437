"""The optimizer, its schedule, and when a stage ends."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from tlkit.config.base import Options
from tlkit.config.plan import Epochs, Rate


class TrainingConfig(Options):
    epochs: Epochs | None = None
    """Epochs of every stage. None: what the plan says."""
    global_batch_size: Literal["auto"] | Annotated[int, pydantic.Field(ge=1)] = "auto"
    """Examples per step over all replicas. `auto`: 32, or less where memory or the data ask for it."""
    batch_tokens: Annotated[int, pydantic.Field(ge=16)] | None = None
    """Texts: tokens per step over all replicas, padding included, instead of a number of examples."""
    learning_rate: Rate | None = None
    """Peak rate of every stage. None: what suits the kind of backbone (see `recipe.py`)."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101), or SGD with momentum."""
    weight_decay: Annotated[float, pydantic.Field(ge=0.0)] = 0.004
    """Decoupled weight decay; biases and normalisation scales are left out."""
    momentum: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.9
    """Nesterov momentum of SGD."""
    clip_norm: Annotated[float, pydantic.Field(gt=0.0)] | None = 1.0
    """Largest global norm of the gradient."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rate does after the warm-up: fall to zero along a cosine over the stage, or stay."""
    warmup: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.1
    """Share of a stage's steps in which the rate rises linearly from zero."""
    patience: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Epochs without a better monitored value after which a stage ends early, with the weights of its best
    epoch. None: a stage runs to its end, because a cosine schedule does its best work there; of a backbone
    that is trained from scratch 3, because it soon learns the examples by heart."""
    restore_best: bool = False
    """End every stage with the weights of its best epoch instead of its last, also without `patience`."""
    reduce_on_plateau: bool = False
    """Multiply the rate by 0.3 after two epochs without a better value; needs `schedule: constant`."""

    @pydantic.model_validator(mode="after")
    def _one_schedule(self) -> TrainingConfig:
        if self.reduce_on_plateau and self.schedule != "constant":
            raise ValueError("reduce_on_plateau needs schedule: constant, received schedule: cosine")
        return self
