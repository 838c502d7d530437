"""How good a model is on labelled examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from tlkit.data import Dataset, changed_files_told
from tlkit.data import load as load_data
from tlkit.errors import ConfigError
from tlkit.heads import make_head
from tlkit.model import stored_bytes
from tlkit.results import RunFolder, writing
from tlkit.workflows.outputs import evaluate_examples, model_function
from tlkit.workflows.run import Run, as_run
from tlkit.workflows.stored import stored_features


def evaluate_run(run: Run | str | Path, data: Any = None, *, trust: bool = False) -> dict[str, Any]:
    """Metrics of a run on its own test split, or on other labelled data.

    Args:
        run: A run, or its folder.
        data: Anything that `finetune` takes as data: its test split where it brings one, else all of it.
            None: the run's own data and test split (the validation split where there is no test split).
        trust: Load a run's SavedModel whose operations read files or run code.

    Raises:
        ConfigError: The run was trained on Python objects and `data` is not given.
        DataError: The data has labels that the model does not know.
    """
    run = as_run(run, trust=trust)
    if data is None and "data" in run.config.python:
        raise ConfigError(f"{run.path} was trained on data in memory; pass the data to evaluate on.")
    dataset = _own_data(run) if data is None else _other_data(run, data)
    held_out = "test" if "test" in dataset.splits else "validation"
    if held_out not in dataset.splits:
        raise ConfigError(f"{run.path} held out no examples; pass the data to evaluate on.")
    examples = dataset.splits[held_out]
    objective = run.config.objective
    head = make_head(
        run.config.head,
        objective,
        n_outputs=run.model.output_shape[-1],
        targets=examples.targets if objective == "embed" else None,
        classes=run.classes,
    )
    loss = None if "loss" in run.config.python else head.loss
    # Losses that compare the examples of a batch, or count its words, depend on how many there are.
    size = run.config.training.global_batch_size
    size = 32 if size == "auto" else size
    table = dataset.manifest.table
    features = stored_features(run, examples, dict(zip(table["id"], table["hash"], strict=True)))
    answer = run.outputs if features is None else model_function(features.parts.upper)
    with changed_files_told(dataset):
        outputs = evaluate_examples(
            answer, run.preprocessing, examples, objective, run.classes, loss, size, features
        )
    if features is not None:
        features.table.leave()
    return outputs.metrics


def save_model(model: keras.Model, folder: RunFolder) -> None:
    """Write `model.keras`, without the optimizer."""
    with writing(folder.model, stored_bytes(model)) as temporary:
        keras.Model(model.input, model.output, name=model.name).save(temporary, include_optimizer=False)


def _own_data(run: Run) -> Dataset:
    return load_data(run.config.data, run.config.task, seed=run.config.seed, preprocessing=run.preprocessing)


def _other_data(run: Run, data: Any) -> Dataset:
    """All examples of other data, or its own test split where it has one."""
    return load_data(
        run.config.data,
        run.config.task,
        seed=run.config.seed,
        preprocessing=run.preprocessing,
        source=str(data) if isinstance(data, Path) else data,
        classes=run.classes,
        only="test",
    )
