"""Optimizer and learning-rate schedule of one stage."""

from __future__ import annotations

import keras

from tlkit.config import TrainingConfig


def make_optimizer(training: TrainingConfig, learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Make the optimizer of a stage.

    Args:
        training: Optimizer, schedule, weight decay and clipping.
        learning_rate: Peak rate.
        steps: Optimizer steps of the whole stage.

    Returns:
        AdamW (Loshchilov and Hutter, arXiv:1711.05101) or SGD with Nesterov momentum. Biases and
        normalisation scales do not decay.
    """
    schedule = _schedule(training, learning_rate, steps)
    if training.optimizer == "sgd":
        optimizer: keras.optimizers.Optimizer = keras.optimizers.SGD(
            schedule,
            momentum=training.momentum,
            nesterov=training.momentum > 0,
            weight_decay=training.weight_decay or None,
            global_clipnorm=training.clip_norm,
        )
    else:
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=training.weight_decay, global_clipnorm=training.clip_norm
        )
    if training.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _schedule(
    training: TrainingConfig, learning_rate: float, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter, arXiv:1608.03983)."""
    if training.schedule == "constant":
        return learning_rate
    warmup_steps = int(steps * training.warmup)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=max(1, steps - warmup_steps),
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
