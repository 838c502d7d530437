"""How a run unfreezes: a plan by name, a plan with options, or a list of stages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from tlkit.config.base import Options
from tlkit.errors import suggest

Epochs = Annotated[int, pydantic.Field(ge=1)]
Rate = Annotated[float, pydantic.Field(gt=0.0)]


class StageSpec(Options):
    """One stage, written out."""

    name: str | None = None
    train: Literal["head", "all"] | Annotated[int, pydantic.Field(ge=1)]
    """The head alone, the head and the top k layer groups, or everything."""
    epochs: Epochs
    learning_rate: Rate | None = None
    patience: Annotated[int, pydantic.Field(ge=1)] | None = None


class HeadPlan(Options):
    """The head alone, on frozen features (linear probing)."""

    name: Literal["head"] = "head"
    epochs: Epochs = 15


class HeadThenTopPlan(Options):
    """The head alone, then the head and the upper part of the backbone."""

    name: Literal["head_then_top"] = "head_then_top"
    head_epochs: Epochs = 3
    epochs: Epochs = 12
    top: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.5
    """Share of the layer groups, counted from the top and rounded down, but at least one."""


class HeadThenAllPlan(Options):
    """Linear probing, then fine-tuning of everything (Kumar et al., arXiv:2202.10054)."""

    name: Literal["head_then_all"] = "head_then_all"
    head_epochs: Epochs = 3
    epochs: Epochs = 10


class GradualPlan(Options):
    """The head, then one more layer group per stage, from the top (Howard and Ruder, arXiv:1801.06146)."""

    name: Literal["gradual"] = "gradual"
    head_epochs: Epochs = 3
    epochs: Epochs = 1
    """Epochs of every stage after the first."""
    groups_per_stage: Annotated[int, pydantic.Field(ge=1)] = 1


class FullPlan(Options):
    """Everything from the first step on."""

    name: Literal["full"] = "full"
    epochs: Epochs = 10


PLANS: dict[str, type[Options]] = {
    "head": HeadPlan,
    "head_then_top": HeadThenTopPlan,
    "head_then_all": HeadThenAllPlan,
    "gradual": GradualPlan,
    "full": FullPlan,
}

NamedPlan = HeadPlan | HeadThenTopPlan | HeadThenAllPlan | GradualPlan | FullPlan
PlanSpec = NamedPlan | tuple[StageSpec, ...]


def parse_plan(value: Any) -> Any:
    """A plan's name, its mapping, or a list of stages, as the class that validates it."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        return value
    name = value.get("name")
    if name not in PLANS:
        raise ValueError(f"unknown plan {name!r}.{suggest(str(name), PLANS)} A list of stages is a plan, too.")
    return PLANS[name].model_validate(value)
