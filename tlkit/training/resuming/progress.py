"""How far the stages of a run are, and what one of them leaves to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from tlkit.config.plan import LoraPlan
from tlkit.plans import Stage
from tlkit.results import StageRecord
from tlkit.training.optimizing.state import OptimizerState
from tlkit.training.trainable import Place


@dataclass
class Progress:
    """What `train_stages` knows between two stages.

    Attributes:
        waiting: The stages to come. They can become more: `auto_freeze` ends a stage and adds its rest.
        begun: Those that have begun, the current one last.
        records: What happened in those that ended.
        histories: Their epochs.
        first_epoch: Epochs that the plan had for them.
        state: What the optimizers have learnt about each weight.
        moved: What each layer group moved in the last epoch, for `auto_freeze`.
        resumed: Where the run went on after it had stopped: stage, and epoch and step counted from 1.
    """

    waiting: list[Stage]
    begun: list[Stage] = field(default_factory=list)
    records: list[StageRecord] = field(default_factory=list)
    histories: list[pd.DataFrame] = field(default_factory=list)
    first_epoch: int = 0
    state: OptimizerState = field(default_factory=OptimizerState)
    moved: Mapping[str, float] | None = None
    resumed: list[dict[str, Any]] = field(default_factory=list)

    def begin_next(self) -> Stage:
        """The next stage, which is the current one from now on."""
        self.begun.append(self.waiting.pop(0))
        return self.begun[-1]

    @property
    def place(self) -> Place:
        """Where the current stage stands."""
        return Place(len(self.begun) - 1, len(self.begun) + len(self.waiting), self.first_epoch)

    def end_stage(
        self, record: StageRecord, history: pd.DataFrame, state: OptimizerState, rest: Stage | None
    ) -> None:
        """Enter the end of the current stage; `rest` is what is left of it, without what has settled."""
        self.first_epoch += self.begun[-1].epochs
        self.records.append(record)
        self.histories.append(history)
        self.state = state
        if rest is not None:
            self.waiting.insert(0, rest.named_unlike(each.name for each in (*self.begun, *self.waiting)))

    def to_plain(self, paths: Sequence[str], trained: Sequence[str]) -> dict[str, Any]:
        """As values that a save can hold.

        Args:
            paths: Those of all weights of the model, whose places stay where names are numbered anew.
            trained: Those whose slots the current optimizer holds, so that they are saved already.
        """
        places = {path: str(place) for place, path in enumerate(paths)}
        slots = {path: dict(of) for path, of in self.state.slots.items() if path not in set(trained)}
        return {
            "waiting": [_plain_stage(stage) for stage in self.waiting],
            "begun": [_plain_stage(stage) for stage in self.begun],
            "records": [record.to_dict() for record in self.records],
            "histories": [history.to_dict("records") for history in self.histories],
            "first_epoch": self.first_epoch,
            "slots": {places[path]: of for path, of in slots.items()},
            "steps": {places[path]: count for path, count in self.state.steps.items()},
            "moved": None if self.moved is None else dict(self.moved),
            "resumed": self.resumed,
        }

    @classmethod
    def from_plain(cls, tree: Mapping[str, Any], paths: Sequence[str]) -> Progress:
        """What `to_plain` gave; `paths` are those of all weights of the model now."""
        slots = {paths[int(place)]: of for place, of in tree["slots"].items()}
        steps = {paths[int(place)]: count for place, count in tree["steps"].items()}
        return cls(
            waiting=[_stage(stage) for stage in tree["waiting"]],
            begun=[_stage(stage) for stage in tree["begun"]],
            records=[StageRecord.from_dict(record) for record in tree["records"]],
            histories=[pd.DataFrame(rows) for rows in tree["histories"]],
            first_epoch=tree["first_epoch"],
            state=OptimizerState(slots, steps),
            moved=tree["moved"],
            resumed=tree["resumed"],
        )


def _plain_stage(stage: Stage) -> dict[str, Any]:
    adapters = None if stage.adapters is None else stage.adapters.model_dump(mode="json")
    return {**asdict(stage), "learning_rates": dict(stage.learning_rates), "adapters": adapters}


def _stage(tree: Mapping[str, Any]) -> Stage:
    adapters = None if tree["adapters"] is None else LoraPlan.model_validate(tree["adapters"])
    return Stage(**{**tree, "adapters": adapters})
