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
    """None: `stage1`, `stage2` and so on."""
    train: Literal["head", "all"] | Annotated[int, pydantic.Field(ge=1)]
    """The head alone, the head and the top k layer groups, or everything."""
    epochs: Epochs
    """Epochs of this stage, unless `training.epochs` says otherwise."""
    learning_rate: Rate | None = None
    """Peak rate. None: `training.learning_rate`, or the default for what the stage trains."""
    patience: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Epochs without a better monitored value after which the stage ends early. None: `training.patience`."""


class HeadPlan(Options):
    """The head alone, on frozen features (linear probing)."""

    name: Literal["head"] = "head"
    epochs: Epochs = 15
    """Epochs of the stage."""


class TopPlan(Options):
    """The head and the upper part of the backbone, from the first step on; the lower part stays frozen."""

    name: Literal["top"] = "top"
    epochs: Epochs = 12
    """Epochs of the stage."""
    share: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] = 0.5
    """Share of the layer groups, counted from the top and rounded down, but at least one."""


class HeadThenAllPlan(Options):
    """Linear probing, then fine-tuning of everything (Kumar et al., arXiv:2202.10054)."""

    name: Literal["head_then_all"] = "head_then_all"
    head_epochs: Epochs = 3
    """Epochs of the first stage, which trains the head alone."""
    epochs: Epochs = 10
    """Epochs of the last stage."""


class GradualPlan(Options):
    """The head, then one more layer group per stage, from the top (Howard and Ruder, arXiv:1801.06146)."""

    name: Literal["gradual"] = "gradual"
    head_epochs: Epochs = 3
    """Epochs of the first stage, which trains the head alone."""
    epochs: Epochs = 1
    """Epochs of every stage after the first."""
    groups_per_stage: Annotated[int, pydantic.Field(ge=1)] = 1
    """How many layer groups each stage adds."""


class FullPlan(Options):
    """Everything from the first step on."""

    name: Literal["full"] = "full"
    epochs: Epochs = 10
    """Epochs of the stage."""


PLANS: dict[str, type[Options]] = {
    "head": HeadPlan,
    "top": TopPlan,
    "head_then_all": HeadThenAllPlan,
    "gradual": GradualPlan,
    "full": FullPlan,
}

STAGES = "stages"


def _kind(value: Any) -> str:
    """Which kind of plan a value is: the name of a plan, or `stages`."""
    if isinstance(value, list | tuple):
        return STAGES
    return str(value["name"] if isinstance(value, dict) else value.name)


PlanSpec = Annotated[
    Annotated[HeadPlan, pydantic.Tag("head")]
    | Annotated[TopPlan, pydantic.Tag("top")]
    | Annotated[HeadThenAllPlan, pydantic.Tag("head_then_all")]
    | Annotated[GradualPlan, pydantic.Tag("gradual")]
    | Annotated[FullPlan, pydantic.Tag("full")]
    | Annotated[tuple[StageSpec, ...], pydantic.Tag(STAGES)],
    pydantic.Discriminator(_kind),
]

UNNAMED = TopPlan.model_fields["name"].default  # the plan that options without a name belong to


def parse_plan(value: Any) -> Any:
    """A plan's name, its options, or a list of stages, in the form that is validated.

    Options without a name are those of `top`. Raises ValueError when it is none of the three.
    """
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, dict):
        value = {"name": UNNAMED, **value}
        if value["name"] not in PLANS:
            hint = suggest(str(value["name"]), PLANS)
            raise ValueError(f"unknown plan {value['name']!r}.{hint} A list of stages is one, too.")
    elif not value or not isinstance(value, list | tuple | Options):
        raise ValueError(
            f"should be a plan's name, its options, or a list of at least one stage, received {value!r}"
        )
    return value
