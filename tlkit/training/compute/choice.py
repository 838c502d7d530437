"""In which precision a stage computes, and whether XLA compiles it: as configured, or as trials tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from tlkit.config import FixedPrecision
from tlkit.errors import TrainingError
from tlkit.plans import Stage
from tlkit.progress import make_console, spinner
from tlkit.training.cache.boundary import Parts
from tlkit.training.compute.candidates import Candidates, list_candidates
from tlkit.training.compute.memory import key_of_stage, recall, remember
from tlkit.training.compute.precision import Setting
from tlkit.training.compute.trial import (
    SLOW,
    TIMED_STEPS,
    Measured,
    disagreement,
    has_chance,
    hold_batches,
    measure,
    trial_batches,
)
from tlkit.training.out_of_memory import out_of_memory
from tlkit.training.trainable import Trainable
from tlkit.training.training_model import TrainingModel

WORTH = 0.05  # the most that a trial may cost, as a share of the stage
XLA_DEARER = 8.0  # compiling against tracing, where nothing is known
BETTER = 0.97  # times the reference's step: less than that is noise
FEWEST_STEPS = 10 * (1 + TIMED_STEPS)


@dataclass(frozen=True)
class ComputeChoice:
    """How a stage computes, and why. `step_seconds`: of what was tried, by its name; None where it failed."""

    precision: FixedPrecision
    xla: bool
    reason: str
    step_seconds: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        return Setting(self.precision, self.xla)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What a stage has to do: training steps, and how often XLA compiles after the first time."""

    steps: int
    compilations: int = 2


def choose_compute(
    run: Trainable,
    stage: Stage,
    parts: Parts | None,
    pipeline: tf.data.Dataset,
    compile_with: Callable[[Setting], TrainingModel],
    *,
    reads_features: bool,
) -> tuple[TrainingModel, ComputeChoice]:
    """Decide for one stage, and compile its model. Weights and random states are afterwards as before.

    `auto` tries one setting after another for a few steps, as long as the stage is long enough to repay it,
    and remembers what it found. A run that should be deterministic tries nothing.

    Args:
        run: What is trainable is that of the stage.
        stage: To be trained.
        parts: The model at the boundary.
        pipeline: The stage's training batches.
        compile_with: Gives a compiled training model.
        reads_features: The batches come from the feature cache.

    Raises:
        TrainingError: What the config asks for does not run, or memory ran out.
    """
    choice, candidates, known, key = _look_up(run, stage, parts, reads_features)
    try:
        if choice is not None:
            model = compile_with(choice.setting)
            if choice.setting != Setting():
                _probe(model, hold_batches(pipeline, run.share.count), choice.setting)
        else:
            with spinner(f"Timing settings of stage {stage.name}"):
                model, known = _try(run, stage, candidates, trial_batches(pipeline), compile_with, parts)
            remember(key, known)
            choice = _chosen(candidates, known, _work(run, stage))
    except tf.errors.ResourceExhaustedError:
        raise out_of_memory(run, stage) from None
    if (run.precision, run.xla) != ("float32", "off"):
        make_console().print(
            f"Stage {stage.name} computes in {choice.setting}: {choice.reason}",
            highlight=False,
            soft_wrap=True,
        )
    return model, choice


def preview_compute(
    run: Trainable, stage: Stage, parts: Parts | None, *, reads_features: bool
) -> ComputeChoice:
    """What `choose_compute` would do, without trying anything."""
    choice, candidates, _, _ = _look_up(run, stage, parts, reads_features)
    if choice is not None:
        return choice
    others = ", ".join(map(str, candidates.settings[1:]))
    reason = f"would be timed against {others}, as far as that repays"
    return ComputeChoice(
        candidates.reference.precision, candidates.reference.xla, _joined(reason, candidates)
    )


def _look_up(
    run: Trainable, stage: Stage, parts: Parts | None, reads_features: bool
) -> tuple[ComputeChoice | None, Candidates, dict[Setting, Measured], str]:
    """The choice where no trial is needed, and what a trial needs where it is."""
    candidates = list_candidates(run, parts, reads_features=reads_features)
    reference, work = candidates.reference, _work(run, stage)

    def without_trial(reason: str) -> ComputeChoice:
        return ComputeChoice(reference.precision, reference.xla, _joined(reason, candidates))

    if len(candidates.settings) == 1:
        asked = {run.precision, run.xla}
        return without_trial("" if "auto" in asked else "as configured"), candidates, {}, ""
    if work.steps < FEWEST_STEPS:
        return without_trial(f"{work.steps} steps are too few to try another setting"), candidates, {}, ""
    key = key_of_stage(run, stage, parts, reads_features=reads_features)
    known = recall(key)
    if reference in known and next_to_try(candidates.settings, known, work) is None:
        choice = _chosen(candidates, known, work)
        return replace(choice, reason=f"{choice.reason}; remembered"), candidates, known, key
    return None, candidates, known, key


def next_to_try(settings: Sequence[Setting], known: Mapping[Setting, Measured], work: Work) -> Setting | None:
    """The next setting whose trial can repay; None where there is no more.

    A trial costs about the reference's first step, compiling for XLA some times that, and the timed steps. It
    may cost a small share of what the stage would take with the best setting so far. Two changes at once are
    not tried where each of them alone was slower.
    """
    reference = known[settings[0]]
    best = known[_fastest(settings, known, work)]
    for setting in settings:
        if setting in known:
            continue
        parts = [each for each in settings[1:] if _is_part(each, setting, settings[0])]
        if len(parts) == 2 and all(
            each in known and _seconds(known[each], each, work) >= reference.step_seconds * work.steps
            for each in parts
        ):
            continue
        tracing = reference.first_seconds * (XLA_DEARER if setting.xla and not settings[0].xla else 1.0)
        if tracing + TIMED_STEPS * reference.step_seconds <= WORTH * work.steps * best.step_seconds:
            return setting
    return None


def _is_part(setting: Setting, whole: Setting, reference: Setting) -> bool:
    """Whether `setting` has one of two changes that `whole` has."""
    return setting != whole and (
        (setting.precision == whole.precision != reference.precision and setting.xla == reference.xla)
        or (setting.xla == whole.xla != reference.xla and setting.precision == reference.precision)
    )


def _try(
    run: Trainable,
    stage: Stage,
    candidates: Candidates,
    batches: tf.data.Dataset,
    compile_with: Callable[[Setting], TrainingModel],
    parts: Parts | None,
) -> tuple[TrainingModel, dict[Setting, Measured]]:
    """Measure the settings anew, one after another: times from another day are no match."""
    work = _work(run, stage)
    best_model = compile_with(candidates.reference)
    reference = measure(best_model, batches)
    if reference.problem:
        raise _cannot(candidates.reference, reference.problem)
    upper = run.model if parts is None else parts.upper
    again = measure(best_model, batches, other_draws=True) if has_chance(upper) else None
    known = {candidates.reference: reference}
    while (setting := next_to_try(candidates.settings, known, work)) is not None:
        fastest = known[_fastest(candidates.settings, known, work)].step_seconds
        model = compile_with(setting)
        try:
            found = measure(model, batches, limit=SLOW * fastest)
        except tf.errors.ResourceExhaustedError:
            found = Measured(problem="memory ran out")
        if not found.problem:
            found = replace(found, problem=disagreement(found, reference, again))
        known[setting] = found
        if _fastest(candidates.settings, known, work) == setting:
            best_model = model
    return best_model, known


def _fastest(settings: Sequence[Setting], known: Mapping[Setting, Measured], work: Work) -> Setting:
    """What takes the stage the least time; the reference, unless something is clearly faster."""
    best, reference = settings[0], known[settings[0]]
    limit = BETTER * reference.step_seconds * work.steps
    for setting in settings[1:]:
        if setting in known and not known[setting].problem:
            seconds = _seconds(known[setting], setting, work)
            if seconds < limit:
                best, limit = setting, seconds
    return best


def _seconds(measured: Measured, setting: Setting, work: Work) -> float:
    """Of a whole stage."""
    if measured.problem:
        return math.inf
    compiling = work.compilations * measured.first_seconds if setting.xla else 0.0
    return measured.step_seconds * work.steps + compiling


def _chosen(candidates: Candidates, known: Mapping[Setting, Measured], work: Work) -> ComputeChoice:
    best = _fastest(candidates.settings, known, work)
    said, untried = [], []
    for setting in sorted(candidates.settings, key=lambda each: each != best):
        if setting not in known:
            untried.append(str(setting))
        elif known[setting].problem:
            said.append(f"{setting}: {known[setting].problem}")
        else:
            compiling = f" and {known[setting].first_seconds:.0f} s to compile a shape" if setting.xla else ""
            said.append(f"{setting} takes {_duration(known[setting].step_seconds)} a step{compiling}")
    if untried:
        said.append(f"not tried, because it would not repay: {', '.join(untried)}")
    times = {
        str(setting): found.step_seconds if math.isfinite(found.step_seconds) else None
        for setting, found in known.items()
    }
    return ComputeChoice(best.precision, best.xla, _joined(", ".join(said), candidates), times)


def _probe(model: TrainingModel, batches: tf.data.Dataset, setting: Setting) -> None:
    """Raise the TrainingError where a step does not run."""
    found = measure(model, batches, steps=1)
    if found.problem:
        raise _cannot(setting, found.problem)


def _cannot(setting: Setting, problem: str) -> TrainingError:
    advice = f" Use {'xla: off' if setting.xla else 'precision: float32'}." if setting != Setting() else ""
    return TrainingError(f"A training step cannot compute in {setting}: {problem[:300]}.{advice}")


def _work(run: Trainable, stage: Stage) -> Work:
    """XLA compiles once for every shape of a batch, and again for validation."""
    plan = run.plan_batches(0)
    sizes = np.diff(plan.starts)
    last = np.minimum(plan.starts[1:], plan.count) - 1
    longest = np.zeros_like(sizes) if plan.padded is None else np.sort(plan.padded)[last]
    shapes = len(set(zip(sizes.tolist(), longest.tolist(), strict=True)))
    return Work(stage.epochs * run.steps_per_epoch, 2 * shapes - 1)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _joined(reason: str, candidates: Candidates) -> str:
    return "; ".join([*([reason] if reason else []), *candidates.left_out])
