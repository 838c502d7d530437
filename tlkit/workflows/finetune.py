"""Fine-tuning from start to end."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras

from tlkit.cluster import find_cluster, is_chief
from tlkit.config import RunConfig, dump, to_yaml
from tlkit.data import changed_files_told
from tlkit.errors import ConfigError
from tlkit.exchange import lost_workers_told
from tlkit.preprocessing import TextPreprocessing
from tlkit.progress import make_console
from tlkit.results import Result, RunFolder, Saves, environment, write_csv, write_json, write_text
from tlkit.results.writing import remove_partial
from tlkit.stopping import Stop, stopped_by_signals
from tlkit.training import (
    Features,
    Saving,
    Trained,
    features_of_split,
    require_own_save,
    require_room_for,
    train_stages,
)
from tlkit.workflows.adapters import save_adapters
from tlkit.workflows.arguments import own_classes, read_arguments
from tlkit.workflows.ending import ending_told
from tlkit.workflows.evaluate import save_model
from tlkit.workflows.export import export_run
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.outputs import Outputs, evaluate_examples, model_function, save_outputs
from tlkit.workflows.prepare import Prepared, prepare
from tlkit.workflows.resume import Stopped, asked_for, read_stopped
from tlkit.workflows.run import Run, load_run
from tlkit.workflows.saved_models import copy_saved_models
from tlkit.workflows.workers import meet_at_end, only_chief_writes

NOT_EXPORTED = (
    "Not exported: the run has NLTK steps, which no SavedModel can hold. "
    "See: tlkit export --client-preprocessing"
)


def run_finetune(
    config: RunConfig,
    *,
    overwrite: bool = False,
    objects: PythonObjects | None = None,
    resume: bool = False,
) -> Run:
    """Fine-tune as a config says, and leave a run folder.

    Args:
        config: Everything the run depends on.
        overwrite: Replace an earlier run in `config.out`.
        objects: Python objects that stand in for parts of the config.
        resume: Go on with the run in `config.out` from its last save, as it was begun; where there is none
            yet, begin it.

    Raises:
        TlkitError: Before training, whatever is wrong; no run folder is written then. While training, a loss
            that is not finite, memory that ran out, a disk that is full, or a file of the data that is gone:
            the best model so far is kept.
        Interrupted: Ctrl-C was pressed; the run and its best model so far were saved.
        SystemExit: The process was told to end (143); the run was saved.
    """
    several = find_cluster(config.strategy) is not None
    with lost_workers_told(several), only_chief_writes(config, overwrite, resume) as (own, replaces):
        return _finetune(own, replaces, objects or PythonObjects(), resume)


def _finetune(config: RunConfig, overwrite: bool, objects: PythonObjects, resume: bool) -> Run:
    started = time.perf_counter()
    if resume and config.out is None:
        raise ConfigError("--resume goes on with the run in a folder: name it with --out RUN.")
    found, stopped = RunFolder.find(config.out) if resume and config.out else None, None
    if found is None:
        RunFolder.require_free(config.out, overwrite)
    with ExitStack() as stack:
        if found is not None:
            if not found.is_complete:
                stack.enter_context(found.locked())
            stopped = read_stopped(found, config, objects)
            if found.is_complete:
                make_console().print(f"{found.path} is complete: there is nothing to go on with.")
                return load_run(found.path)
        prepared = prepare(config if stopped is None else stopped.config, objects)
        with changed_files_told(prepared.dataset):
            require_room_for(prepared.trainable, prepared.stages)
        for note in prepared.notes:
            make_console().print(note, highlight=False, soft_wrap=True)
        if stopped is None:
            folder = RunFolder.create(config.out, prepared.dataset.name, prepared.entry.name, overwrite)
            stack.enter_context(folder.locked())
            stopped = Stopped(folder, config, None)
        else:
            stopped.require_same_data(prepared)
            if stopped.saved is not None:
                require_own_save(prepared.trainable, stopped.saved)
            make_console().print(stopped.where, highlight=False, soft_wrap=True)
            remove_partial(stopped.folder.path)  # nobody refuses any more: now the folder may change
            Saves(stopped.folder.saves).remove_damaged()
        stop = Stop()
        stack.enter_context(stopped_by_signals(stop))
        return _train(prepared, stopped, stop, objects, started - stopped.seconds)


def _train(prepared: Prepared, stopped: Stopped, stop: Stop, objects: PythonObjects, started: float) -> Run:
    """The stages, and what follows them."""
    folder, trainable = stopped.folder, prepared.trainable
    saves = Saves(folder.saves)
    speaks = is_chief(prepared.config.strategy)
    with ending_told(trainable.model, folder, speaks, objects.names):
        if stopped.is_longer and stopped.saved is not None:
            saves.write(stopped.saved)  # before the config, which never says more than the save does
        _write_config(prepared, folder)
        if stopped.saved is None:
            _write_inputs(prepared, stopped)
        folder.write_state("running")
        saving = Saving(saves, stop, stopped.saved)
        trained = train_stages(trainable, prepared.stages, folder.path, objects.callbacks, saving)
        outputs = _finish(prepared, trained, folder)
        metrics = {name: output.metrics for name, output in outputs.items()}
        seconds = time.perf_counter() - started
        folder.complete(
            Result(metrics, tuple(trained.records), seconds, environment(), tuple(trained.resumed))
        )
    meet_at_end(trainable.strategy, is_chief=speaks)
    return load_run(folder.path).holding(trainable.model)


def _finish(prepared: Prepared, trained: Trained, folder: RunFolder) -> dict[str, Outputs]:
    """What follows training: history, model, evaluation, export."""
    write_csv(folder.history, trained.history)
    save_model(prepared.trainable.model, folder)
    if trained.adapters is not None:
        save_adapters(prepared, trained.adapters, folder.adapters)
    with changed_files_told(prepared.dataset):
        outputs = _evaluate(prepared, trained.features)
    if trained.features is not None:
        trained.features.table.leave()
    save_outputs(outputs, prepared.config.objective, prepared.dataset.manifest.classes, folder)
    if not is_chief(prepared.config.strategy):
        return outputs
    if prepared.config.export and prepared.config.preprocessing.nltk:
        make_console().print(NOT_EXPORTED, highlight=False, soft_wrap=True)
    elif prepared.config.export:
        run = load_run(folder.path).holding(prepared.trainable.model)
        export_run(run, folder.export, overwrite=True, outputs=outputs)
    return outputs


def finetune(
    data: Any = None,
    backbone: str | Path | Run | keras.Model | None = None,
    *,
    config: str | Path | Mapping[str, Any] | RunConfig | None = None,
    task: str | None = None,
    plan: Any = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
    sequence_length: int | None = None,
    augment: Any = None,
    head: Any = None,
    loss: Any = None,
    metrics: Any = None,
    callbacks: Any = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    **settings: Any,
) -> Run:
    """Fine-tune a pretrained backbone on your own pictures or texts.

    Args:
        data: A folder of class folders, a folder of split folders, a table (CSV, Parquet, CoNLL), records
            (TFRecord), `gs://…`, `s3://…`, `tfds:NAME`, `datasets:OWNER/NAME`, a sample's name, a DataFrame,
            `(inputs, labels)` arrays, a `tf.data.Dataset`, or a data set of Hugging Face.
        backbone: A zoo entry's name; an earlier run or its folder; `wheel:…`, `hub:…`, `kaggle:…`, `hf:…`,
            `keras_hub:…`, `url:…`; the path of a model; or a functional Keras model for pictures, which is
            copied and cut below its head.
        config: A YAML file, a mapping, or a RunConfig to start from; every other argument wins over it.
        plan: A plan's name, its options, or a list of stages.
        epochs: Epochs of every stage.
        batch_size: Examples per step over all replicas.
        learning_rate: Peak rate of every stage.
        image_size: Side of the model input, in pixels.
        sequence_length: Most tokens of one text.
        augment: A policy's name, a list of augmentations, or one or several Keras layers or functions.
        head: Options of the head, or a Keras layer or function from feature map, or pooled sequence, to
            outputs.
        loss: A loss's name, or a Keras loss or function.
        metrics: One or several Keras metrics or functions to log while training.
        callbacks: One or several Keras callbacks, or functions of (epoch, logs) that are called after every
            epoch; they run in every stage.
        out: The run folder.
        overwrite: Replace an earlier run there.
        resume: Go on with the run in `out` from its last save. Its config is its own; what is given here has
            to be the same, but for more `epochs`.
        settings: Any other key of the config, such as `seed=1` or `training={"patience": 3}`.

    Raises:
        TlkitError: Whatever is wrong, in one line.

    Example:
        >>> run = tlkit.finetune(data="photos/", backbone="efficientnet_lite0")
        >>> run.metrics["accuracy"]
    """
    options = {
        "task": task,
        "plan": plan,
        "training.epochs": epochs,
        "training.global_batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "preprocessing.image_size": image_size,
        "preprocessing.sequence_length": sequence_length,
        "out": None if out is None else str(out),
    }
    resolved, objects = read_arguments(
        data,
        backbone,
        config,
        options,
        settings,
        augment=augment,
        head=head,
        loss=loss,
        metrics=metrics,
        callbacks=callbacks,
    )
    with keras.saving.custom_object_scope(own_classes(backbone)):
        return run_finetune(resolved, overwrite=overwrite, objects=objects, resume=resume)


def _write_config(prepared: Prepared, folder: RunFolder) -> None:
    # Trust is one person's, on one machine: it does not go along with the folder.
    config = prepared.config.model_copy(update={"out": str(folder.path), "trust": False})
    write_text(folder.config, to_yaml(dump(config)))


def _write_inputs(prepared: Prepared, stopped: Stopped) -> None:
    """What the run starts from, written before it trains; what was asked for, last."""
    dataset, folder = prepared.dataset, stopped.folder
    write_text(folder.zoo_entry, to_yaml(prepared.entry.to_dict()))
    copy_saved_models(prepared.trainable.model, folder)
    write_csv(folder.manifest, dataset.manifest.table)
    write_csv(folder.data_report, dataset.report)
    if isinstance(prepared.preprocessing, TextPreprocessing):
        prepared.preprocessing.tokenizer.save(folder.tokenizer)
    if dataset.manifest.classes is not None:
        write_text(folder.labels, "".join(f"{name}\n" for name in dataset.manifest.classes))
    if not folder.asked.exists():  # what the first command said: the config above is complete
        own = stopped.config.model_copy(update={"trust": False})
        write_json(folder.asked, asked_for(own))


def _evaluate(prepared: Prepared, features: Features | None) -> dict[str, Outputs]:
    """Validation and, once and at the end, test; from what the frozen layers gave, where that is stored."""
    run = prepared.trainable
    found: dict[str, Outputs] = {}
    answer_of = functools.cache(model_function)
    for name in ("validation", "test"):
        if name in prepared.dataset.splits:
            stored = features_of_split(run, features, name)
            found[name] = evaluate_examples(
                answer_of(run.model if stored is None else stored.parts.upper),
                prepared.preprocessing,
                prepared.dataset.splits[name],
                prepared.config.objective,
                prepared.dataset.manifest.classes,
                run.head.loss,
                run.global_batch_size,
                stored,
                run.strategy,
            )
    return found
