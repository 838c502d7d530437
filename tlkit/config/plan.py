"""How a run unfreezes: a plan by name, a plan with options, or a list of stages."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic

from tlkit.config.base import Options
from tlkit.errors import suggest


def _is_regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {text!r} ({error})") from None
    return text


Epochs = Annotated[int, pydantic.Field(ge=1)]
Rate = Annotated[float, pydantic.Field(gt=0.0)]
Decay = Annotated[float, pydantic.Field(gt=0.0, le=1.0)]
Groups = Annotated[int, pydantic.Field(ge=1)]
Percentile = Annotated[float, pydantic.Field(gt=0.0, lt=100.0)]
Regex = Annotated[str, pydantic.AfterValidator(_is_regex)]
Schedule = Literal["cosine", "one_cycle", "linear", "constant", "plateau", "slanted_triangular"]


class StageSpec(Options):
    """One stage, written out."""

    name: str | None = None
    """None: `stage1`, `stage2` and so on."""
    train: Literal["head", "all"] | Groups
    """The head alone, the head and the top k layer groups, or everything."""
    epochs: Epochs
    """Epochs of this stage, unless `training.epochs` says otherwise."""
    learning_rate: Rate | None = None
    """Peak rate. None: `training.learning_rate`, or the default for what the stage trains."""
    layer_decay: Decay | None = None
    """What each layer group's rate is of that of the group above it. None: `training.layer_decay`."""
    schedule: Schedule | None = None
    """What the rate does over the stage. None: `training.schedule`."""
    patience: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Epochs without a better monitored value after which the stage ends early. None: `training.patience`."""
    auto_freeze: Percentile | None = None
    """Freeze the lowest layer groups as they settle: see the plan `auto_freeze`. None: not."""


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
    """LP-FT: linear probing, then fine-tuning of everything (Kumar et al., arXiv:2202.10054)."""

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
    groups_per_stage: Groups = 1
    """How many layer groups each stage adds."""


class MilestonesPlan(Options):
    """The head, then more of the backbone from given epochs on (Lightning Flash: `unfreeze_milestones`)."""

    name: Literal["milestones"] = "milestones"
    milestones: dict[Annotated[int, pydantic.Field(ge=0)], Literal["all"] | Groups] = {3: 1, 6: "all"}
    """Epoch, counted from 0 over the whole run → how many layer groups train from then on, from the top.
    Before the first of them the head trains alone."""
    epochs: Epochs = 10
    """Epochs of the whole run. (`training.epochs` would give every stage its own number.)"""

    @pydantic.model_validator(mode="after")
    def _epochs_and_groups_grow(self) -> MilestonesPlan:
        if not self.milestones:
            raise ValueError("milestones should name at least one epoch, received {}")
        if max(self.milestones) >= self.epochs:
            raise ValueError(
                f"the last of the milestones should be before the end, received epoch {max(self.milestones)} "
                f"of {self.epochs} epochs, counted from 0"
            )
        counts = [self.milestones[epoch] for epoch in sorted(self.milestones)]
        numbers = [float("inf") if count == "all" else count for count in counts]
        if numbers != sorted(set(numbers)):
            listed = ", ".join(map(str, counts))
            raise ValueError(
                f"every milestone should train more groups than the one before, received {listed}"
            )
        return self


class UlmfitPlan(Options):
    """ULMFiT: gradual unfreezing, discriminative rates, slanted triangular schedules (arXiv:1801.06146).

    In every stage each layer group learns at 1/2.6 of the rate of the group above it, and the rate rises over
    a tenth of the steps to 32 times where it starts and ends. `training.layer_decay`, `training.schedule` and
    `training.warmup` win over these.
    """

    name: Literal["ulmfit"] = "ulmfit"
    epochs: Epochs = 1
    """Epochs of the head's stage and of every stage that adds layer groups."""
    last_epochs: Epochs = 3
    """Epochs of the last stage, which trains everything; the paper goes on until it has converged."""
    groups_per_stage: Groups = 1
    """How many layer groups each stage adds."""


class LoraPlan(Options):
    """LoRA: a low-rank matrix is learned beside frozen weights, and the head (Hu et al., arXiv:2106.09685).

    The head and the adapters train from the first step on. At the end they are kept as a small file of their
    own, and the adapters are merged into the weights, so that the model is as large and fast as before.
    """

    name: Literal["lora"] = "lora"
    epochs: Epochs = 5
    """Epochs of the stage."""
    rank: Annotated[int, pydantic.Field(ge=1)] = 8
    """Rank of what is added to each kernel; at most the kernel's own."""
    alpha: Annotated[float, pydantic.Field(gt=0.0)] | None = None
    """What is added is multiplied by alpha / rank. None: the rank, so by 1."""
    targets: Literal["auto"] | Annotated[tuple[Regex, ...], pydantic.Field(min_length=1)] = "auto"
    """Which layers of the backbone get an adapter: a list of regular expressions, each to be found somewhere
    in the layer's path. `auto`: the query and value projections of attention; in a backbone where no layer is
    named as one, every dense and convolutional layer that is wide enough."""


class FullPlan(Options):
    """Everything from the first step on."""

    name: Literal["full"] = "full"
    epochs: Epochs = 10
    """Epochs of the stage."""


class AutoFreezePlan(Options):
    """The head, then everything, of which what has settled freezes early (AutoFreeze, arXiv:2102.01386).

    After every epoch but the first, layer groups are compared by how much less or more they moved in it than
    in the epoch before, relative to that. From the input up, those below `percentile` freeze, until the first
    that is not; the stored features move up behind them, and the schedule goes on.
    """

    name: Literal["auto_freeze"] = "auto_freeze"
    head_epochs: Epochs = 3
    """Epochs of the first stage, which trains the head alone."""
    epochs: Epochs = 10
    """Epochs of all that follows."""
    percentile: Percentile = 50.0
    """Of the changes of all layer groups that still train. A higher one freezes more."""


PLANS: dict[str, type[Options]] = {
    "head": HeadPlan,
    "top": TopPlan,
    "head_then_all": HeadThenAllPlan,
    "gradual": GradualPlan,
    "milestones": MilestonesPlan,
    "ulmfit": UlmfitPlan,
    "auto_freeze": AutoFreezePlan,
    "lora": LoraPlan,
    "full": FullPlan,
}
ALIASES = {"lp_ft": "head_then_all"}  # what the paper calls it

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
    | Annotated[MilestonesPlan, pydantic.Tag("milestones")]
    | Annotated[UlmfitPlan, pydantic.Tag("ulmfit")]
    | Annotated[AutoFreezePlan, pydantic.Tag("auto_freeze")]
    | Annotated[LoraPlan, pydantic.Tag("lora")]
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
        value["name"] = ALIASES.get(str(value["name"]), value["name"])
        if value["name"] not in PLANS:
            hint = suggest(str(value["name"]), [*PLANS, *ALIASES])
            raise ValueError(f"unknown plan {value['name']!r}.{hint} A list of stages is one, too.")
    elif not value or not isinstance(value, list | tuple | Options):
        raise ValueError(
            f"should be a plan's name, its options, or a list of at least one stage, received {value!r}"
        )
    return value
