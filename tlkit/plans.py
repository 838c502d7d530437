"""Unfreezing as data: a plan becomes a tuple of stages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tlkit.config import PlanSpec, StageSpec, TrainingConfig, validate
from tlkit.config.plan import (
    AutoFreezePlan,
    FullPlan,
    GradualPlan,
    HeadPlan,
    HeadThenAllPlan,
    LoraPlan,
    MilestonesPlan,
    Schedule,
    TopPlan,
    UlmfitPlan,
)
from tlkit.config.recipe import RECIPES, Recipe
from tlkit.errors import ConfigError, suggest

Train = Literal["head", "all"] | int
HEAD = "head"  # its name among the layer groups
ULMFIT_DECAY = 1 / 2.6


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: Unique within the plan.
        train: `head`, `all`, or the number of layer groups that train, counted from the top.
        epochs: Upper bound; early stopping may end it before.
        learning_rate: Peak rate.
        patience: Epochs without a better monitored value before the stage ends; None: never.
        layer_decay: What each layer group's rate is of that of the group above it.
        learning_rates: Peak rates of single layer groups and of `head`; they win over `layer_decay`.
        schedule: What the rate does over the stage. None: what `TrainingConfig` says.
        auto_freeze: The percentile below which the lowest layer groups count as settled; None: none do.
        epochs_before: Epochs of the same schedule that stages before this one have run.
        parts_before: Names of the stages that it is the rest of; with them it is one stage to the user.
        adapters: What is learned beside frozen weights of the backbone; None: nothing.

    Raises:
        ConfigError: No epochs, or a rate that is not a positive number.
    """

    name: str
    train: Train
    epochs: int
    learning_rate: float
    patience: int | None = None
    layer_decay: float = 1.0
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule | None = None
    auto_freeze: float | None = None
    epochs_before: int = 0
    parts_before: tuple[str, ...] = ()
    adapters: LoraPlan | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"Stage {self.name!r} should have at least 1 epoch, received {self.epochs}.")
        rates = {
            "learning_rate": self.learning_rate,
            "layer_decay": self.layer_decay,
            **{f"learning_rates.{group}": rate for group, rate in self.learning_rates.items()},
        }
        for name, rate in rates.items():
            if not (math.isfinite(rate) and rate > 0):
                raise ConfigError(
                    f"Stage {self.name!r}: {name} should be a number above 0, received {rate}. "
                    "What should not learn is frozen by the plan."
                )

    def n_trained(self, n_groups: int) -> int:
        """How many layer groups this stage trains."""
        if self.train == "head":
            return 0
        return n_groups if self.train == "all" else self.train

    def without(self, n_settled: int, n_groups: int, epochs_run: int) -> Stage | None:
        """The rest of this stage without its lowest `n_settled` layer groups; None where none is left."""
        if not n_settled or epochs_run >= self.epochs:
            return None
        n_trained = self.n_trained(n_groups) - n_settled
        return replace(
            self,
            name=f"{self.name}_top{n_trained}" if self.train != "all" else f"top{n_trained}",
            train=n_trained,
            epochs=self.epochs - epochs_run,
            epochs_before=self.epochs_before + epochs_run,
            parts_before=(*self.parts_before, self.name),
        )

    def named_unlike(self, taken: Iterable[str]) -> Stage:
        """This stage, under a name that no other has."""
        names = set(taken)
        candidates = itertools.chain([self.name], (f"{self.name}_{number}" for number in itertools.count(2)))
        return replace(self, name=next(name for name in candidates if name not in names))

    def rates(self, group_names: Sequence[str]) -> dict[str, float]:
        """The peak rate of every layer group and of `head`; what is frozen has one, too.

        Args:
            group_names: The backbone's layer groups, input to output.
        """
        depths = range(len(group_names), 0, -1)
        rates = {
            name: self.learning_rate * self.layer_decay**depth
            for name, depth in zip(group_names, depths, strict=True)
        }
        return {**rates, HEAD: self.learning_rate, **self.learning_rates}


def require_groups(stages: Iterable[Stage], group_names: Sequence[str]) -> None:
    """Raise the ConfigError for a rate of a layer group that there is not."""
    for stage in stages:
        for name in stage.learning_rates:
            if name not in (*group_names, HEAD):
                hint = suggest(name, [*group_names, HEAD])
                raise ConfigError(
                    f"training.learning_rates: the backbone has no layer group {name!r}.{hint} "
                    "All of them: --dry-run"
                )


def make_plan(
    spec: PlanSpec | str | Mapping[str, Any] | Sequence[Any] | None,
    n_groups: int,
    training: TrainingConfig | None = None,
    recipe: Recipe = RECIPES["image"],
) -> tuple[Stage, ...]:
    """The stages of a plan for a backbone of `n_groups` layer groups.

    Args:
        spec: A plan's name, its options, or stages written out. None: the recipe's.
        n_groups: Layer groups of the backbone.
        training: What it sets of epochs, rates, schedule and patience wins over the plan's defaults.
        recipe: Plan and rates for what the config leaves open.

    Raises:
        ConfigError: There is no such plan, a stage trains more groups than there are, two share a name, or
            what they ask for does not go together.
    """
    training = training or TrainingConfig()
    plan = validate({"plan": recipe.plan if spec is None else spec}).plan
    specs = plan if isinstance(plan, tuple) else _specs(plan, n_groups, training)
    adapters = plan if isinstance(plan, LoraPlan) else None
    stages = tuple(_stage(index, stage, training, recipe, adapters) for index, stage in enumerate(specs))
    for stage in stages:
        if isinstance(stage.train, int) and stage.train > n_groups:
            raise ConfigError(
                f"Stage {stage.name!r} trains {stage.train} layer groups; "
                f"the backbone has {n_groups}. Use 1 to {n_groups}."
            )
        if stage.auto_freeze is not None and stage.schedule == "plateau":
            raise ConfigError(
                f"Stage {stage.name!r}: auto_freeze and the schedule plateau do not go together, as each "
                "waits for the other. Use training.schedule=cosine or another."
            )
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ConfigError(f"Stages need different names, received {', '.join(names)}.")
    return stages


def _stage(
    index: int, spec: StageSpec, training: TrainingConfig, recipe: Recipe, adapters: LoraPlan | None
) -> Stage:
    default_rate = recipe.head_learning_rate if spec.train == "head" else recipe.learning_rate
    if adapters is not None:
        default_rate = recipe.adapter_learning_rate
    return Stage(
        name=spec.name or f"stage{index + 1}",
        train=spec.train,
        epochs=training.epochs or spec.epochs,
        learning_rate=spec.learning_rate or training.learning_rate or default_rate,
        patience=spec.patience or training.patience or recipe.patience,
        layer_decay=spec.layer_decay or training.layer_decay or 1.0,
        learning_rates=training.learning_rates,
        schedule=spec.schedule or training.schedule,
        auto_freeze=spec.auto_freeze,
        adapters=adapters,
    )


def _specs(plan: object, n_groups: int, training: TrainingConfig) -> tuple[StageSpec, ...]:
    match plan:
        case HeadPlan():
            return (StageSpec(name="head", train="head", epochs=plan.epochs),)
        case TopPlan():
            top = max(1, int(n_groups * plan.share))
            return (StageSpec(name="top", train=top, epochs=plan.epochs),)
        case HeadThenAllPlan():
            return (
                StageSpec(name="head", train="head", epochs=plan.head_epochs),
                StageSpec(name="all", train="all", epochs=plan.epochs),
            )
        case GradualPlan():
            return _gradual(n_groups, plan.groups_per_stage, (plan.head_epochs, plan.epochs, plan.epochs))
        case UlmfitPlan():
            stages = _gradual(n_groups, plan.groups_per_stage, (plan.epochs, plan.epochs, plan.last_epochs))
            own = {
                "layer_decay": training.layer_decay or ULMFIT_DECAY,
                "schedule": training.schedule or "slanted_triangular",
            }
            return tuple(stage.model_copy(update=own) for stage in stages)
        case AutoFreezePlan():
            everything = StageSpec(name="all", train="all", epochs=plan.epochs, auto_freeze=plan.percentile)
            return (StageSpec(name="head", train="head", epochs=plan.head_epochs), everything)
        case MilestonesPlan():
            return _milestones(plan)
        case LoraPlan():
            return (StageSpec(name="lora", train="head", epochs=plan.epochs),)
        case FullPlan():
            return (StageSpec(name="all", train="all", epochs=plan.epochs),)
    raise ConfigError(f"Not a plan: {plan!r}.")


def _gradual(n_groups: int, step: int, epochs: tuple[int, int, int]) -> tuple[StageSpec, ...]:
    """The head, then `step` groups more per stage; epochs of the first, of those between, of the last."""
    first, between, last = epochs
    return (
        StageSpec(name="head", train="head", epochs=first),
        *(StageSpec(name=f"top{k}", train=k, epochs=between) for k in range(step, n_groups, step)),
        StageSpec(name="all", train="all", epochs=last),
    )


def _milestones(plan: MilestonesPlan) -> tuple[StageSpec, ...]:
    trained: dict[int, Train] = {0: "head", **plan.milestones}
    starts = sorted(trained)
    return tuple(
        StageSpec(
            name=f"top{trained[start]}" if isinstance(trained[start], int) else str(trained[start]),
            train=trained[start],
            epochs=end - start,
        )
        for start, end in zip(starts, [*starts[1:], plan.epochs], strict=True)
    )
