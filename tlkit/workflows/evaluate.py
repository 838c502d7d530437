"""How good a model is on labelled examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tlkit.config import Task
from tlkit.data import Examples, make_pipeline
from tlkit.data import load as load_data
from tlkit.errors import ConfigError
from tlkit.evaluation import compute_metrics
from tlkit.heads import make_head, to_scores
from tlkit.preprocessing import ImagePreprocessing
from tlkit.results import RunFolder, write_csv, write_npz, writing
from tlkit.workflows.run import Run, load_run


@dataclass(frozen=True)
class Outputs:
    """What a model gives for one split: logits (n, classes) or values (n, targets), float32, and metrics."""

    examples: Examples
    outputs: np.ndarray
    metrics: dict[str, Any]


def evaluate_run(run: Run | str | Path, data: Any = None) -> dict[str, Any]:
    """Metrics of a run on its own test split, or on other labelled data.

    Args:
        run: A run, or its folder.
        data: Anything that `finetune` takes as data: its test split where it brings one, else all of it.
            None: the run's own data and test split (the validation split where there is no test split).

    Raises:
        ConfigError: The run was trained on Python objects and `data` is not given.
        DataError: The data has labels that the model does not know.
    """
    run = run if isinstance(run, Run) else load_run(run)
    if data is None and "data" in run.config.python:
        raise ConfigError(f"{run.path} was trained on data in memory; pass the data to evaluate on.")
    examples = _own_split(run) if data is None else _all_of(run, data)
    head = make_head(run.config.head, run.config.task, n_outputs=run.model.output_shape[-1])
    loss = None if "loss" in run.config.python else head.loss
    return evaluate_examples(
        run.model, run.preprocessing, examples, run.config.task, run.classes, loss
    ).metrics


def evaluate_examples(
    model: keras.Model,
    preprocessing: ImagePreprocessing,
    examples: Examples,
    task: Task,
    classes: tuple[str, ...] | None,
    loss: Any,
    global_batch_size: int = 32,
) -> Outputs:
    """Run a model over examples, in order, and measure it. `loss` may be None."""
    pipeline = make_pipeline(examples, preprocessing, global_batch_size=global_batch_size, training=False)
    outputs = np.asarray(model.predict(pipeline, verbose=0), "float32")
    scores = np.asarray(to_scores(task, outputs))
    value = (
        None
        if loss is None
        else float(keras.ops.mean(loss(examples.targets, keras.ops.convert_to_tensor(outputs))))
    )
    return Outputs(examples, outputs, compute_metrics(task, examples.targets, scores, classes, loss=value))


def save_model(model: keras.Model, folder: RunFolder) -> None:
    """Write `model.keras`, without the optimizer."""
    with writing(folder.model) as temporary:
        keras.Model(model.inputs, model.outputs[0], name=model.name).save(temporary, include_optimizer=False)


def save_outputs(
    splits: Mapping[str, Outputs], task: Task, classes: tuple[str, ...] | None, folder: RunFolder
) -> None:
    """Write `predictions.csv` for people and `outputs.npz` for programs."""
    if not splits:
        return
    tables = [
        prediction_table(output, task, classes).assign(split=name)[
            ["id", "split", "label", "predicted", "score"]
        ]
        for name, output in splits.items()
    ]
    write_csv(folder.predictions, pd.concat(tables, ignore_index=True))
    ids = np.concatenate([output.examples.ids for output in splits.values()])
    write_npz(
        folder.outputs,
        {"ids": ids, "outputs": np.concatenate([output.outputs for output in splits.values()])},
    )


def prediction_table(output: Outputs, task: Task, classes: tuple[str, ...] | None) -> pd.DataFrame:
    """One row per example: `id, label, predicted, score`; the score is that of the predicted label."""
    targets, ids = output.examples.targets, output.examples.ids
    scores = np.asarray(to_scores(task, output.outputs))
    if task == "regress":
        joined = [";".join(f"{value:.6g}" for value in np.atleast_1d(row)) for row in targets]
        predicted = [";".join(f"{value:.6g}" for value in row) for row in scores]
        return pd.DataFrame({"id": ids, "label": joined, "predicted": predicted, "score": ""})
    assert classes is not None
    names = np.array(classes, dtype=object)
    if task == "multilabel":
        return pd.DataFrame(
            {
                "id": ids,
                "label": ["|".join(names[row > 0.5]) for row in targets],
                "predicted": ["|".join(names[row > 0.5]) for row in scores],
                "score": scores.max(axis=1),
            }
        )
    best = scores.argmax(axis=1)
    return pd.DataFrame(
        {"id": ids, "label": names[targets], "predicted": names[best], "score": scores.max(axis=1)}
    )


def _own_split(run: Run) -> Examples:
    splits = load_data(
        run.config.data, run.config.task, seed=run.config.seed, preprocessing=run.preprocessing
    ).splits
    held_out = splits.get("test") or splits.get("validation")
    if held_out is None:
        raise ConfigError(f"{run.path} held out no examples; pass the data to evaluate on.")
    return held_out


def _all_of(run: Run, data: Any) -> Examples:
    """All examples of other data, or its own test split where it has one."""
    dataset = load_data(
        run.config.data,
        run.config.task,
        seed=run.config.seed,
        preprocessing=run.preprocessing,
        source=str(data) if isinstance(data, Path) else data,
        classes=run.classes,
        only="test",
    )
    return dataset.splits["test"]
