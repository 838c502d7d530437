"""The settings that a stage may have: what the config allows, this machine, and the model."""

from __future__ import annotations

from dataclasses import dataclass

from tlkit.config import FixedPrecision
from tlkit.devices import device_kind, without_bfloat16
from tlkit.errors import ConfigError
from tlkit.exchange import is_multi_worker
from tlkit.training.cache.boundary import Parts
from tlkit.training.compute.precision import Setting, backbone_layers
from tlkit.training.trainable import Trainable


@dataclass(frozen=True)
class Candidates:
    """The settings that a stage may have, the reference first, and what is left out, and why."""

    settings: tuple[Setting, ...]
    left_out: tuple[str, ...] = ()

    @property
    def reference(self) -> Setting:
        return self.settings[0]


def list_candidates(run: Trainable, parts: Parts | None, *, reads_features: bool) -> Candidates:
    """What the config allows for a stage, and this machine, and the model.

    Args:
        run: What is trainable is that of the stage.
        parts: The model at the boundary.
        reads_features: The stage's batches come from the feature cache: what is frozen does not compute.
    """
    left_out: list[str] = []
    precisions: list[FixedPrecision] = ["float32"] if run.precision == "auto" else [run.precision]
    kind = device_kind(run.strategy)
    compiled = [run.xla == "on" and kind != "TPU"]
    untimed = _untimed(run)
    computing = backbone_layers(run.model, run.groups)
    if reads_features and parts is not None:
        above = {id(layer) for layer in parts.upper._flatten_layers()}
        computing = [layer for layer in computing if id(layer) in above]
    if run.precision != "float32" and not computing:
        left_out.append("nothing computes but what is float32 always: the head, or a SavedModel")
        precisions = ["float32"]
    elif run.precision == "auto" and kind == "TPU":
        left_out.append("a TPU multiplies in bfloat16")
        precisions = ["mixed_bfloat16"]
    elif run.precision == "auto" and untimed:
        left_out.append(untimed)
    elif run.precision == "auto":
        if missing := without_bfloat16(run.strategy):
            left_out.append(f"mixed_bfloat16 not tried: {missing}")
        else:
            precisions.append("mixed_bfloat16")
        if kind == "GPU":
            precisions.append("mixed_float16")
    if kind == "TPU" and run.xla != "off":
        left_out.append("a TPU compiles with XLA always")
    elif run.xla == "auto" and run.n_replicas > 1:
        left_out.append("XLA not tried: it cannot compile the exchange between replicas")
    elif run.xla == "auto" and run.training.accumulate > 1:
        left_out.append("XLA not tried: it cannot compile the parts of training.accumulate")
    elif run.xla == "auto" and untimed:
        if run.precision != "auto" or not computing:
            left_out.append(untimed)
    elif run.xla == "auto":
        compiled.append(True)
    settings = [Setting(precision, xla) for xla in compiled for precision in precisions]
    return Candidates(tuple(settings), tuple(left_out))


def _untimed(run: Trainable) -> str:
    """Why nothing may depend on how long it takes; empty where it may."""
    if run.deterministic:
        return "deterministic: true leaves nothing to timing"
    return "not tried: each worker would time it differently" if is_multi_worker(run.strategy) else ""


def require_compilable(run: Trainable) -> None:
    """Raise the ConfigError for XLA, which a TPU always has, where it is known not to work."""
    uneven = {"training.accumulate": run.training.accumulate > 1, "training.batch_tokens": run.update_tokens}
    for key, is_set in uneven.items():
        if run.on_tpu and is_set:
            raise ConfigError(
                f"strategy: tpu compiles for every shape, and {key} makes batches of many sizes. Leave it "
                "out, or use another strategy."
            )
    if run.xla == "on" and run.n_replicas > 1 and not run.on_tpu:
        raise ConfigError(
            f"xla: on, but there are {run.n_replicas} replicas, and XLA cannot compile the exchange between "
            "them. Use xla: off, or one device."
        )
    if run.xla == "on" and run.training.accumulate > 1:
        raise ConfigError(
            "xla: on, but XLA cannot compile the parts of training.accumulate, whose sizes differ. "
            "Use xla: off."
        )
