"""Optimizers, their state and schedules, and what is done with gradients and weights."""
