"""The training model of a stage, compiled."""

from __future__ import annotations

from tlkit.plans import Stage
from tlkit.training.cache.boundary import Parts
from tlkit.training.compute.precision import Casting, Setting, backbone_layers
from tlkit.training.optimizing.optimizer import make_optimizer
from tlkit.training.optimizing.schedules import SETTABLE, schedule_of, warmup_share
from tlkit.training.optimizing.stage_optimizers import LossScale
from tlkit.training.optimizing.state import OptimizerState
from tlkit.training.trainable import Trainable
from tlkit.training.training_model import TrainingModel

MOST_AT_ONCE = 32  # a customary number


def compile_stage(
    run: Trainable,
    stage: Stage,
    parts: Parts | None,
    state: OptimizerState | None = None,
    setting: Setting | None = None,
    at_once: int = 1,
) -> TrainingModel:
    """A freshly compiled training model over the run's layers, for what is trainable now.

    Its optimizer goes on from `state` with the weights that were trained before. `setting`: how it computes;
    None: in float32, without XLA. `fit` runs so many steps `at_once`.
    """
    setting = setting or Setting()
    with run.strategy.scope():
        model = TrainingModel.of(run.model, parts)
        model.accumulate = run.training.accumulate
        model.mixed = None if run.mixing is None else run.mixing.objective
        model.row_unit = 2 if run.head.task == "embed" else 1
        if setting.precision != "float32":
            model.casting = Casting(backbone_layers(run.model, run.groups), setting.precision)
        optimizer = make_optimizer(
            run.training,
            stage,
            stage.epochs * run.steps_per_epoch,
            model.trainable_variables,
            run.groups,
            state,
        )
        if setting.precision == "mixed_float16":
            optimizer = LossScale(optimizer)
            optimizer.build(model.trainable_variables)
        model.compile(
            optimizer,
            run.head.loss,
            metrics=run.head.metrics(),
            jit_compile=setting.xla,
            steps_per_execution=at_once,
        )
    return model


def steps_at_once(run: Trainable, stage: Stage) -> int:
    """How many steps of a stage run without coming back to Python: on a TPU, which would wait, several.

    It is a number that divides an epoch, because Keras does not stop at the end of one. One after the other
    where the plan looks at the weights within an epoch, or a rate that Python sets rises from step to step.
    """
    schedule = schedule_of(stage, run.training)
    rises = schedule in SETTABLE and warmup_share(schedule, run.training.warmup) > 0
    if not run.on_tpu or stage.auto_freeze is not None or rises:
        return 1
    return next(count for count in range(MOST_AT_ONCE, 0, -1) if run.steps_per_epoch % count == 0)
