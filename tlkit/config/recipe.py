"""The defaults that depend on the kind of backbone: how it is unfrozen, and at which rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tlkit.config.plan import FullPlan, PlanSpec, TopPlan

Kind = Literal["image", "transformer", "text", "scratch"]


@dataclass(frozen=True)
class Recipe:
    """What a run does where its config is silent.

    `head_learning_rate` is the peak rate of a stage that trains the head alone, `adapter_learning_rate` of
    one that trains adapters with it, `learning_rate` that of the others. `patience` ends a stage early, with
    the weights of its best epoch; None: it runs to its end.
    """

    plan: PlanSpec
    head_learning_rate: float
    learning_rate: float
    adapter_learning_rate: float = 1e-3
    patience: int | None = None


RECIPES: dict[Kind, Recipe] = {
    "image": Recipe(TopPlan(), head_learning_rate=1e-3, learning_rate=3e-4),
    # Vision transformers. Chosen on validation data of toy pictures: at 3e-4 a DINOv2's loss rises first.
    "transformer": Recipe(TopPlan(), head_learning_rate=1e-3, learning_rate=5e-5),
    # Adapters: of 5e-4, 1e-3 and 3e-3 the last gave the best validation accuracy on 800 texts with MiniLM. On
    # pictures it was not compared.
    "text": Recipe(
        FullPlan(epochs=3), head_learning_rate=1e-3, learning_rate=1e-4, adapter_learning_rate=3e-3
    ),
    "scratch": Recipe(FullPlan(epochs=15), head_learning_rate=1e-3, learning_rate=1e-3, patience=3),
}
DEFAULT_BACKBONES = {"image": "efficientnet_lite0", "text": "minilm_l6"}
