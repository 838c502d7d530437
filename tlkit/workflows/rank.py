"""Which pretrained backbone suits the data, told before any of them is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tlkit import zoo
from tlkit.config import RunConfig, load_config
from tlkit.data import longest_side, modality_of
from tlkit.data.records import Records
from tlkit.errors import ConfigError, DataError, TlkitError
from tlkit.evaluation.transferability import log_maximum_evidence, nearest_neighbour_score
from tlkit.progress import make_console, make_progress
from tlkit.workflows.rank_choice import chosen_entries, default_entries
from tlkit.workflows.rank_examples import FEWEST, RankExamples, draw_examples, write_pictures
from tlkit.workflows.rank_process import features_from_process, make_job
from tlkit.zoo import ZooEntry
from tlkit.zoo.source import UrlSource, WheelSource

MOST_EXAMPLES = 2000
TASKS = ("classify", "multilabel", "regress")


@dataclass(frozen=True)
class RankedBackbone:
    """One backbone and how well its frozen features suit the data.

    `logme` and `knn`: higher is better (see `tlkit.evaluation.transferability`). `size` is the side of the
    input in pixels, or the most tokens. `seconds` is for the features of all examples, once the backbone was
    loaded (`load_seconds`). `peak_memory` is in bytes, of the whole process with TensorFlow in it, without
    what a GPU held; None where the operating system does not tell.
    """

    name: str
    logme: float
    knn: float
    parameters: int
    features: int
    size: int
    seconds: float
    load_seconds: float
    peak_memory: int | None


@dataclass(frozen=True)
class Ranking:
    """Backbones from the best LogME to the worst, on `examples` of the `training_examples`.

    `failed` says of a backbone why it gave no features, `left_out` why it was not tried.
    """

    data: str
    task: str
    examples: int
    training_examples: int
    classes: int | None
    seed: int
    ranked: tuple[RankedBackbone, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The name of the first one."""
        return self.ranked[0].name

    @property
    def table(self) -> pd.DataFrame:
        """A row for each ranked backbone."""
        return pd.DataFrame([asdict(row) for row in self.ranked])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rank_backbones(
    data: Any = None,
    backbones: Sequence[str | Path | keras.Model] | str | Path | keras.Model | None = None,
    *,
    config: str | Path | Mapping[str, Any] | RunConfig | None = None,
    task: str | None = None,
    examples: int = MOST_EXAMPLES,
    image_size: int | None = None,
    sequence_length: int | None = None,
    seed: int | None = None,
    trust: bool = False,
) -> Ranking:
    """Rank pretrained backbones by how well their frozen features suit your labels; nothing is trained.

    Each backbone gives features of the same training examples (validation and test are not looked at), in a
    process of its own. LogME and a nearest-neighbour score then say how well the features tell the labels.

    Args:
        data: As of `finetune`: a folder, a table, a sample's name, a DataFrame, arrays, or a dataset.
        backbones: One or several, as of `finetune`: names or Keras models. None: those of the data's modality
            that are verified and at hand.
        config: A YAML file, a mapping, or a RunConfig to start from; every other argument wins over it.
        task: classify, multilabel or regress.
        examples: The most training examples to use, drawn by the seed, stratified.
        image_size: Side of the input in pixels; by default what a run would choose.
        sequence_length: Most tokens of a text; by default what a run would choose.
        seed: That of the run whose splits are meant.
        trust: Load a SavedModel whose operations read files or run code.

    Raises:
        TlkitError: What is wrong with the data or a name, before anything is computed; and where no backbone
            gave features, why the first one did not.

    Example:
        >>> ranking = tlkit.rank_backbones("photos/", ["efficientnet_lite0", "mobilenet_v2_torchvision"])
        >>> tlkit.finetune("photos/", ranking.best)
    """
    is_path = isinstance(data, str | Path)
    given = {
        "data.source": str(data) if is_path else None,
        "task": task,
        "preprocessing.image_size": image_size,
        "preprocessing.sequence_length": sequence_length,
        "seed": seed,
        "trust": trust or None,
    }
    options = {dotted: value for dotted, value in given.items() if value is not None}
    chosen = [backbones] if isinstance(backbones, str | Path | keras.Model) else backbones
    resolved = load_config(config, options=options).config
    return run_rank(resolved, chosen, examples=examples, data=None if is_path else data)


def run_rank(
    config: RunConfig,
    chosen: Sequence[str | Path | keras.Model] | None = None,
    *,
    examples: int = MOST_EXAMPLES,
    data: Any = None,
) -> Ranking:
    """Rank backbones as a run with this config would see them; see `rank_backbones`."""
    if config.task not in TASKS:
        raise ConfigError(f"Backbones are ranked for {', '.join(TASKS)}; received task {config.task!r}.")
    if config.preprocessing.long_texts == "windows":
        raise ConfigError("preprocessing.long_texts: windows are not ranked. Choose head, tail or head_tail.")
    if examples < FEWEST:
        raise ConfigError(f"examples must be at least {FEWEST}, received {examples}.")
    modality = modality_of(config.data.source if data is None else data, config.data)
    longest = longest_side(config.data, data) if modality == "image" else None
    with tempfile.TemporaryDirectory(prefix="tlkit-rank-") as temporary:
        folder = Path(temporary)
        left_out: dict[str, str] = {}
        if chosen is None:
            entries, left_out = default_entries(config, modality)
        else:
            entries = chosen_entries(config, modality, chosen, folder, longest)
        for note in (f"{entry.name}: {note}" for entry in entries for note in entry.notes):
            make_console().print(note, highlight=False, soft_wrap=True)
        drawn = draw_examples(config, examples, data)
        inputs = _written(drawn, folder / "pictures")
        jobs = {entry.name: make_job(config, entry, inputs, longest) for entry in entries}
        ranked, failed = _measure_all(entries, jobs, drawn, config.task, folder)
    if not ranked:
        name, reason = next(iter(failed.items()))
        raise DataError(f"No backbone could be ranked; {name}: {reason}")
    return Ranking(
        data=drawn.name,
        task=config.task,
        examples=len(drawn),
        training_examples=drawn.training_examples,
        classes=None if drawn.classes is None else len(drawn.classes),
        seed=config.seed,
        ranked=tuple(sorted(ranked, key=lambda row: -row.logme)),
        failed=failed,
        left_out=left_out,
    )


def _measure_all(
    entries: Sequence[ZooEntry], jobs: Mapping[str, Any], drawn: RankExamples, task: str, folder: Path
) -> tuple[list[RankedBackbone], dict[str, str]]:
    """What each backbone gives, one after the other, and why some do not."""
    ranked, failed, count = [], {}, len(drawn)
    with make_progress() as progress:
        bar = progress.add_task("", total=len(entries) * count)
        for number, entry in enumerate(entries):

            def advance(done: int, name: str = entry.name, before: int = number * count) -> None:
                progress.update(bar, completed=before + done, description=name, refresh=True)

            advance(0)
            try:
                if isinstance(entry.source, WheelSource | UrlSource):
                    zoo.fetch_weights(entry)  # here, where its progress is seen
                features, facts = features_from_process(jobs[entry.name], folder / str(number), advance)
                ranked.append(_score(entry, features, facts, drawn.targets, task))
            except TlkitError as error:
                failed[entry.name] = str(error)
            advance(count)
    return ranked, failed


def _written(drawn: RankExamples, folder: Path) -> list[str]:
    """Texts, or paths: what a process can be told in JSON."""
    inputs = drawn.inputs
    if isinstance(inputs, Records) or not isinstance(inputs[0], str):
        return write_pictures(inputs, folder)
    return list(inputs)


def _score(
    entry: ZooEntry, features: np.ndarray, facts: Mapping[str, Any], targets: np.ndarray, task: Any
) -> RankedBackbone:
    return RankedBackbone(
        name=entry.name,
        logme=log_maximum_evidence(features, targets, task),
        knn=nearest_neighbour_score(features, targets, task),
        parameters=entry.params,
        features=features.shape[1],
        **facts,
    )
