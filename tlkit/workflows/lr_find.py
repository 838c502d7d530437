"""Which learning rate suits a stage, told by a range test that leaves everything as it was."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import pandas as pd

from tlkit.cluster import require_alone
from tlkit.config import RunConfig
from tlkit.data import changed_files_told
from tlkit.errors import ConfigError, StorageError, UnknownNameError
from tlkit.evaluation import Plot
from tlkit.evaluation.lr_plot import plot_rates
from tlkit.places import require_local
from tlkit.plans import Stage
from tlkit.results import writing
from tlkit.training.determinism import determinism_unchanged
from tlkit.training.lr_range import (
    HIGHEST,
    LOWEST,
    STEPS,
    SUGGESTIONS,
    check_range,
    measure_rates,
    suggest_rates,
)
from tlkit.training.random_state import random_state_unchanged
from tlkit.workflows.arguments import own_classes, read_arguments
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.prepare import prepare

if TYPE_CHECKING:
    from tlkit.workflows.run import Run

FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class RateSearch:
    """The learning rates that suit one stage.

    Attributes:
        stage: Its name.
        curve: A row for each seed and step: `seed`, `step`, `learning_rate`, `loss`, `smoothed`.
        by_seed: A row for each seed: `seed`, `valley`, `steep`, `minimum`; NaN where the loss never fell.
        suggestions: `valley`, `steep` and `minimum`: the medians over the seeds; None where there is none.
        notes: What somebody should know who uses them.
    """

    stage: str
    curve: pd.DataFrame
    by_seed: pd.DataFrame
    suggestions: Mapping[str, float | None]
    notes: tuple[str, ...]

    @property
    def suggestion(self) -> float | None:
        """`valley`, for `learning_rate`: the least noisy of the three. None where the loss never fell."""
        return self.suggestions[SUGGESTIONS[0]]

    def plot(self) -> Plot:
        """Loss against learning rate, with the suggestions."""
        seeds = self.curve["seed"].nunique()
        title = f"stage {self.stage}" + (f", {seeds} seeds" if seeds > 1 else "")
        return plot_rates(self.curve, self.suggestions, title)

    def save_plot(self, path: str | Path) -> None:
        """Write the picture: .png, .svg or .pdf."""
        check_picture(path)
        with writing(path) as temporary:
            self.plot().savefig(temporary, format=Path(path).suffix[1:].lower())

    def to_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "suggestion": self.suggestion,
            "suggestions": dict(self.suggestions),
            "by_seed": self.by_seed.to_dict("records"),
            "curve": self.curve.to_dict("records"),
            "notes": list(self.notes),
        }

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


def run_lr_find(
    config: RunConfig,
    *,
    stage: str | None = None,
    seeds: int = 1,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    objects: PythonObjects | None = None,
    weights: keras.Model | None = None,
) -> RateSearch:
    """Test the learning rates of one stage of a run. Nothing is written and nothing is kept.

    Args:
        config: Of the run.
        stage: Name of the stage; None: the first one, with `weights` the last one.
        seeds: How many: `config.seed`, the one after it … Each draws its own splits, order and head.
        lowest, highest, steps: As of `measure_rates`.
        objects: Python objects that stand in for parts of the config.
        weights: A model with the weights to start from. None: the pretrained ones under a new head.

    Raises:
        TlkitError: Whatever is wrong, before anything is tried.
    """
    require_alone(config.strategy, "The range test")
    check_range(lowest, highest, steps)
    if seeds < 1:
        raise ConfigError(f"seeds should be at least 1, received {seeds}.")
    curves, found, chosen, later = [], [], "", False
    with random_state_unchanged(), determinism_unchanged():
        for seed in range(config.seed, config.seed + seeds):
            prepared = prepare(config.model_copy(update={"seed": seed}), objects)
            run, stages = prepared.trainable, prepared.stages
            index = _find_stage(stages, stage, last=weights is not None)
            chosen, later = stages[index].name, index > 0
            if weights is not None:
                run.model.set_weights(weights.get_weights())
            with changed_files_told(prepared.dataset):
                curve = measure_rates(run, stages, index, lowest=lowest, highest=highest, steps=steps)
            curve.insert(0, "seed", seed)
            curves.append(curve)
            found.append({"seed": seed, **suggest_rates(curve)})
    table = pd.DataFrame(found).astype(dict.fromkeys(SUGGESTIONS, "float64"))
    suggestions = {name: _median(table[name].dropna().tolist()) for name in SUGGESTIONS}
    notes = _notes(curves, table, highest, untrained=later and weights is None, stage=chosen)
    return RateSearch(chosen, pd.concat(curves, ignore_index=True), table, suggestions, notes)


def lr_find(
    data: Any = None,
    backbone: str | Path | Run | keras.Model | None = None,
    *,
    stage: str | None = None,
    seeds: int = 1,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    config: str | Path | Mapping[str, Any] | RunConfig | None = None,
    task: str | None = None,
    plan: Any = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    sequence_length: int | None = None,
    augment: Any = None,
    head: Any = None,
    loss: Any = None,
    **settings: Any,
) -> RateSearch:
    """Find a learning rate for a run before it trains: the range test of Smith (arXiv:1506.01186).

    The rate rises from `lowest` to `highest` while the stage trains a few steps; a good rate is in the
    middle of where the loss falls. Weights, optimizer, random states and the order of the data are left as
    they are.

    Args:
        stage: Name of the stage, such as `head` or `all`. None: the first one.
        seeds: How many times it is tried, each with its own splits, order and head; medians are given.
        lowest: Rate of the first step.
        highest: Rate of the last step; the test ends before where the loss diverges.
        steps: Steps, at most.
        data, backbone, config, task, plan, batch_size, image_size, sequence_length, augment, head, loss,
            settings: As of `finetune`.

    Raises:
        TlkitError: Whatever is wrong, in one line.

    Example:
        >>> found = tlkit.lr_find(data="photos/", seeds=3)
        >>> run = tlkit.finetune(data="photos/", learning_rate=found.suggestion)
    """
    options = {
        "task": task,
        "plan": plan,
        "training.global_batch_size": batch_size,
        "preprocessing.image_size": image_size,
        "preprocessing.sequence_length": sequence_length,
    }
    resolved, objects = read_arguments(
        data, backbone, config, options, settings, augment=augment, head=head, loss=loss
    )
    with keras.saving.custom_object_scope(own_classes(backbone)):
        return run_lr_find(
            resolved, stage=stage, seeds=seeds, lowest=lowest, highest=highest, steps=steps, objects=objects
        )


def lr_find_on(run: Run, **options: Any) -> RateSearch:
    """Test learning rates on a finished run, from the weights that it ended with. See `Run.lr_find`.

    Raises:
        ConfigError: Parts of the run were Python objects, which its folder does not hold.
    """
    objects = [name for name in run.config.python if name not in ("callbacks", "metrics")]
    if objects:
        raise ConfigError(
            f"The {', '.join(objects)} of {run.path} came from Python, and its folder does not hold them. "
            "Pass them to tlkit.lr_find(…)."
        )
    config = run.config.model_copy(update={"trust": run.trust})
    return run_lr_find(config, weights=run.model, **options)


def check_picture(path: str | Path) -> None:
    """Raise an error where no picture can be written to `path`."""
    require_local(path, "A picture")
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"A picture should end in {', '.join(FORMATS)}, received {str(path)!r}.")
    if path.is_dir():
        raise StorageError(f"Cannot write {path}: it is a folder.")


def _find_stage(stages: Sequence[Stage], name: str | None, last: bool) -> int:
    if name is None:
        return len(stages) - 1 if last else 0
    names = [stage.name for stage in stages]
    if name not in names:
        raise UnknownNameError("stage", name, names)
    return names.index(name)


def _median(rates: Sequence[float]) -> float | None:
    """Of rates, hence on their scale: of logarithms."""
    return math.exp(statistics.median(map(math.log, rates))) if len(rates) else None


def _notes(
    curves: Sequence[pd.DataFrame], found: pd.DataFrame, highest: float, untrained: bool, stage: str
) -> tuple[str, ...]:
    notes = []
    never = int(found[SUGGESTIONS[0]].isna().sum())
    if never:
        which = "" if len(found) == 1 else f" for {never} of {len(found)} seeds"
        notes.append(
            f"The loss does not fall at any rate{which}. More --steps or another --highest may show more; "
            "else check labels, loss and backbone."
        )
    elif any(curve["smoothed"].idxmin() == len(curve) - 1 for curve in curves):
        notes.append(
            f"The loss still falls at the last rate, {highest:g}; a higher --highest may show better ones."
        )
    if untrained:
        notes.append(
            f"The stages before {stage!r} were not trained: its head is new. "
            "After training them, run.lr_find(stage=…) starts from their weights."
        )
    return tuple(notes)
