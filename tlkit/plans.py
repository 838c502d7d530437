"""Unfreezing as data: a plan becomes a tuple of stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tlkit.config import PlanSpec, StageSpec, TrainingConfig, validate
from tlkit.config.plan import FullPlan, GradualPlan, HeadPlan, HeadThenAllPlan, TopPlan
from tlkit.config.recipe import RECIPES, Recipe
from tlkit.errors import ConfigError

Train = Literal["head", "all"] | int


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: Unique within the plan.
        train: `head`, `all`, or the number of layer groups that train, counted from the top.
        epochs: Upper bound; early stopping may end it before.
        learning_rate: Peak rate.
        patience: Epochs without a better monitored value before the stage ends; None: never.
    """

    name: str
    train: Train
    epochs: int
    learning_rate: float
    patience: int | None = None

    def n_trained(self, n_groups: int) -> int:
        """How many layer groups this stage trains."""
        if self.train == "head":
            return 0
        return n_groups if self.train == "all" else self.train


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
        training: Its `epochs`, `learning_rate` and `patience` win over the plan's defaults.
        recipe: Plan and rates for what the config leaves open.

    Raises:
        ConfigError: There is no such plan, a stage trains more groups than there are, or two share a name.
    """
    training = training or TrainingConfig()
    plan = validate({"plan": recipe.plan if spec is None else spec}).plan
    specs = plan if isinstance(plan, tuple) else _specs(plan, n_groups)
    stages = tuple(_stage(index, stage, training, recipe) for index, stage in enumerate(specs))
    for stage in stages:
        if isinstance(stage.train, int) and stage.train > n_groups:
            raise ConfigError(
                f"Stage {stage.name!r} trains {stage.train} layer groups; "
                f"the backbone has {n_groups}. Use 1 to {n_groups}."
            )
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ConfigError(f"Stages need different names, received {', '.join(names)}.")
    return stages


def _stage(index: int, spec: StageSpec, training: TrainingConfig, recipe: Recipe) -> Stage:
    default_rate = recipe.head_learning_rate if spec.train == "head" else recipe.learning_rate
    return Stage(
        name=spec.name or f"stage{index + 1}",
        train=spec.train,
        epochs=training.epochs or spec.epochs,
        learning_rate=spec.learning_rate or training.learning_rate or default_rate,
        patience=spec.patience or training.patience or recipe.patience,
    )


def _specs(plan: object, n_groups: int) -> tuple[StageSpec, ...]:
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
            counts = range(plan.groups_per_stage, n_groups, plan.groups_per_stage)
            return (
                StageSpec(name="head", train="head", epochs=plan.head_epochs),
                *(StageSpec(name=f"top{k}", train=k, epochs=plan.epochs) for k in counts),
                StageSpec(name="all", train="all", epochs=plan.epochs),
            )
        case FullPlan():
            return (StageSpec(name="all", train="all", epochs=plan.epochs),)
    raise ConfigError(f"Not a plan: {plan!r}.")
