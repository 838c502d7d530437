"""The optimizer of one stage."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import keras

from tlkit.config import TrainingConfig
from tlkit.errors import ConfigError
from tlkit.freezing import LayerGroup
from tlkit.plans import HEAD, Stage
from tlkit.training.optimizing.schedules import make_schedule, schedule_of
from tlkit.training.optimizing.stage_optimizers import (
    StageAdafactor,
    StageAdam,
    StageAdamW,
    StageLion,
    StageMuon,
    StageOptimizer,
    StageSGD,
)
from tlkit.training.optimizing.state import OptimizerState, put_state

OPTIMIZERS: dict[str, type[StageOptimizer]] = {
    "adam": StageAdam,
    "adamw": StageAdamW,
    "sgd": StageSGD,
    "lion": StageLion,
    "adafactor": StageAdafactor,
    "muon": StageMuon,
}
MOMENTUM = 0.9
CLIP = {"global_norm": "global_clipnorm", "norm": "clipnorm", "value": "clipvalue"}


def make_optimizer(
    training: TrainingConfig,
    stage: Stage,
    steps: int,
    variables: Sequence[keras.Variable],
    groups: Sequence[LayerGroup] = (),
    state: OptimizerState | None = None,
) -> Any:
    """Make and build the optimizer of a stage. To be called in the strategy's scope.

    Args:
        training: Kind, weight decay, clipping and averaging; the schedule, where the stage has none.
        stage: Its rates and schedule.
        steps: Optimizer steps of the stage.
        variables: What the stage trains.
        groups: The backbone's layer groups, input to output. All else belongs to the head.
        state: What the stages before have left: weights that were trained in them go on from there.

    Returns:
        A `keras.optimizers.Optimizer` that is a `StageOptimizer`, too.

    Raises:
        ConfigError: The installed Keras does not have what the optimizer needs.
    """
    steps_before = stage.epochs_before * steps // stage.epochs
    group_of = {path: group.name for group in groups for path in group.weights}
    rates = stage.rates([group.name for group in groups])
    paths = {variable.path: group_of.get(variable.path, HEAD) for variable in variables}
    optimizer: Any = OPTIMIZERS[training.optimizer](
        learning_rate=make_schedule(
            schedule_of(stage, training),
            stage.learning_rate,
            steps_before + steps,
            training.warmup,
            steps_before,
        ),
        multipliers={path: rates[group] / stage.learning_rate for path, group in paths.items()},
        weight_decay=None if training.optimizer == "adam" else training.weight_decay or None,
        **_own_options(training, [path for path, group in paths.items() if group == HEAD]),
        **({CLIP[training.clip.by]: training.clip.limit} if training.clip else {}),
        **({"use_ema": True, "ema_momentum": training.ema} if training.ema else {}),
    )
    optimizer.build(list(variables))
    put_state(optimizer, state or OptimizerState())
    return optimizer


def _own_options(training: TrainingConfig, head: Sequence[str]) -> dict[str, Any]:
    """What one kind of optimizer alone takes. `head`: the paths of its weights."""
    if training.optimizer == "sgd":
        momentum = MOMENTUM if training.momentum is None else training.momentum
        return {"momentum": momentum, "nesterov": momentum > 0}
    if training.optimizer == "adafactor":
        return {"relative_step": False}  # the schedule decides
    if training.optimizer == "muon":
        if "rms_rate" not in inspect.signature(keras.optimizers.Muon.__init__).parameters:
            raise ConfigError(
                f"training.optimizer: muon needs a newer Keras, installed is {keras.__version__}: "
                "pip install --upgrade keras. Or use adamw."
            )
        # Muon is for matrices between hidden layers: the output layer, embeddings and tables of position
        # biases are AdamW's, as are vectors and kernels of more than two dimensions (Keras sees to those).
        return {"exclude_layers": [*(f"^{re.escape(path)}$" for path in head), "embed", "bias"]}
    return {}
