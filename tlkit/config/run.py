"""The whole config of a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from tlkit.config.base import Options
from tlkit.config.data import DataConfig
from tlkit.config.head import HeadConfig, Task
from tlkit.config.plan import DEFAULT_PLAN, PlanSpec, parse_plan
from tlkit.config.preprocessing import PreprocessingConfig
from tlkit.config.training import TrainingConfig


class RunConfig(Options):
    """Everything that a run depends on. The keys of the YAML file are the names of these fields."""

    data: DataConfig = DataConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    backbone: str = "efficientnet_lite0"
    """A zoo entry's name, or the folder of an earlier run."""
    weights: Literal["pretrained", "none"] = "pretrained"
    """`none` starts from the layers' own random initialisers."""
    task: Task = "classify"
    """One label per example, any number of labels, or numbers."""
    head: HeadConfig = HeadConfig()
    plan: PlanSpec = DEFAULT_PLAN
    """How the run unfreezes: a plan's name, `{name: …, option: …}`, or a list of stages."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """`frozen` keeps statistics, scale and shift of every BatchNorm as they were, in unfrozen groups too."""
    training: TrainingConfig = TrainingConfig()
    strategy: Literal["auto", "cpu", "gpu", "mirrored", "tpu"] = "auto"
    """`auto`: mirrored for several GPUs, else the GPU, else the CPU."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 0
    """Decides the splits, the order of the examples, every random draw and the head's initial weights."""
    deterministic: bool = False
    """Make two runs on one machine bit-identical, at some cost in speed."""
    export: bool = True
    """Write a SavedModel into the run folder at the end."""
    out: str | None = None
    """The run folder. None: `runs/<data>-<backbone>-<n>`."""
    python: tuple[str, ...] = ()
    """Arguments that were Python objects and so cannot be written here."""

    @pydantic.field_validator("plan", mode="before")
    @classmethod
    def _parse_plan(cls, value: Any) -> Any:
        return parse_plan(value)
