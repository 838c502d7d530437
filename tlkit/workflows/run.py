"""A finished run, as people hold it in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import pandas as pd

from tlkit.backbones import import_keras_hub, saved_model_objects
from tlkit.backbones.checked_keras import load_checked_model
from tlkit.config import RunConfig, load_config, read_yaml
from tlkit.errors import ConfigError, FetchError
from tlkit.preprocessing import (
    ImagePreprocessing,
    TextPreprocessing,
    load_tokenizer,
    make_preprocessing,
    make_text_preprocessing,
)
from tlkit.preprocessing.nltk_steps import make_cleaner
from tlkit.results import Result, RunFolder, load_result
from tlkit.workflows.outputs import model_function
from tlkit.zoo import ImageInput, TextInput, ZooEntry, open_copy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tlkit.workflows.lr_find import RateSearch


@dataclass(frozen=True)
class Run:
    """One run: its folder, and what is in it, read when asked for.

    Attributes:
        path: The run folder.
        config: The resolved config.
        entry: The zoo entry of the backbone.
        classes: Class names in the order of the scores, or None for a regression.
        custom_objects: The user's own Keras classes, needed where the head or a layer is one of them.
        trust: Load the run's SavedModel even if its operations read files or run code.
    """

    path: Path
    config: RunConfig = field(repr=False)
    entry: ZooEntry = field(repr=False)
    classes: tuple[str, ...] | None = field(repr=False)
    custom_objects: Mapping[str, Any] = field(default_factory=dict, repr=False)
    trust: bool = field(default=False, repr=False)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path)

    @cached_property
    def result(self) -> Result:
        """Metrics, stages and environment of a complete run."""
        return load_result(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the test split, or of the validation split where there is no test split."""
        metrics = self.result.metrics
        return metrics.get("test") or metrics.get("validation") or {}

    @property
    def stages(self) -> pd.DataFrame:
        """One row per stage: what trained, for how long, and whether the frozen part was unchanged."""
        return pd.DataFrame([stage.to_dict() for stage in self.result.stages])

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.read_csv(self.folder.history)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per validation and test example."""
        return pd.read_csv(
            self.folder.predictions, dtype={"id": str, "label": str, "predicted": str}, keep_default_na=False
        )

    @cached_property
    def model(self) -> keras.Model:
        """Model inputs to logits or values."""
        constructor = self.entry.constructor
        if self.entry.modality == "text" or (constructor and constructor.builder == "keras_hub_image"):
            import_keras_hub()  # registers the layers that the file names
        try:
            # A run may be somebody else's: its model is checked, as a copy that nobody can change meanwhile.
            with open_copy(self.folder.model, None) as copy:
                objects = saved_model_objects(self.path, trust=self.trust)
                model = load_checked_model(copy, {**objects, **self.custom_objects})
        except (TypeError, ValueError, FetchError) as error:
            own = [name for name in ("head", "backbone") if name in self.config.python]
            if not own:
                raise
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"The {' and the '.join(own)} of {self.path} came from Python; pass the classes to "
                f"tlkit.load(…, custom_objects={{…}}). {reason}"
            ) from error
        return model

    def holding(self, model: keras.Model) -> Run:
        """The same run with its model at hand, so that it is not read from the folder."""
        run = replace(self)
        run.__dict__["model"] = model  # where `cached_property` would put it
        return run

    @cached_property
    def outputs(self) -> Callable[[Any], Any]:
        """A function from model inputs to logits or values."""
        return model_function(self.model)

    @property
    def backbone_model(self) -> keras.Model:
        """The fine-tuned backbone: model inputs to the feature map, or to the outputs for every token."""
        return next(layer for layer in self.model.layers if isinstance(layer, keras.Model))

    @cached_property
    def preprocessing(self) -> ImagePreprocessing | TextPreprocessing:
        spec = self.config.preprocessing
        if isinstance(self.entry.input, TextInput):
            return make_text_preprocessing(
                self.entry.input,
                spec,
                load_tokenizer(self.folder.tokenizer),
                self.config.task,
                clean=make_cleaner(spec.nltk) if spec.nltk else None,
            )
        assert isinstance(self.entry.input, ImageInput)  # nothing else is ever trained
        return make_preprocessing(self.entry.input, spec)

    def predict(self, inputs: Any, top: int = 5) -> Any:
        """Predict pictures: a file, bytes or array (H, W, 3) gives one answer (a dict); a folder, an array
        (n, H, W, 3) or a list of all these gives a list. Or texts: a string (for pairs, a tuple of two)
        gives one answer, several of them a list."""
        from tlkit.workflows.predict import is_one, predict_run

        answers = predict_run(self, inputs, top=top)
        return answers[0] if is_one(inputs, self) else answers

    def evaluate(self, data: Any = None) -> dict[str, Any]:
        """Metrics on the run's own test split, or on other labelled data."""
        from tlkit.workflows.evaluate import evaluate_run

        return evaluate_run(self, data)

    def export(self, to: str | Path, overwrite: bool = False, client_preprocessing: bool = False) -> Path:
        """Write a SavedModel that takes raw bytes or strings, checked in a fresh process."""
        from tlkit.workflows.export import export_run

        return export_run(self, to, overwrite=overwrite, client_preprocessing=client_preprocessing)

    def save_adapters(self, path: str | Path) -> Path:
        """Copy what a run of plan `lora` learned, adapters and head, to one small file: `tlkit.load(path)`
        puts it upon its backbone again, on any machine that has or can fetch that."""
        from tlkit.workflows.adapters import copy_adapters

        return copy_adapters(self, Path(path))

    def lr_find(
        self,
        stage: str | None = None,
        *,
        seeds: int = 1,
        lowest: float = 1e-7,
        highest: float = 10.0,
        steps: int = 100,
    ) -> RateSearch:
        """Learning rates that suit a stage of the run's plan (None: the last one) if it went on from here:
        from the weights that the run ended with. They stay as they are. See `tlkit.lr_find`."""
        from tlkit.workflows.lr_find import lr_find_on

        return lr_find_on(self, stage=stage, seeds=seeds, lowest=lowest, highest=highest, steps=steps)

    def plot(self) -> Figure:
        """Loss and metric over all stages."""
        from tlkit.evaluation import plot_history

        return plot_history(self.history)

    def confusion_matrix(self, split: str = "test") -> Figure:
        """The confusion matrix of a split as a picture."""
        from tlkit.evaluation import confusion_matrix, plot_confusion_matrix

        if self.config.objective != "classify":
            raise ConfigError(
                f"A confusion matrix needs one label per example; this run's task is {self.config.task!r}."
            )
        rows = self.predictions[self.predictions["split"] == split]
        if rows.empty:
            known = ", ".join(sorted(set(self.predictions["split"])))
            raise ConfigError(f"The run has no predictions of split {split!r}. It has: {known}.")
        assert self.classes is not None
        numbers = {name: number for number, name in enumerate(self.classes)}
        targets, predicted = (rows[column].map(numbers).to_numpy() for column in ("label", "predicted"))
        return plot_confusion_matrix(confusion_matrix(targets, predicted, self.classes))

    def _repr_html_(self) -> str:
        rows = {"run": self.path, "backbone": self.entry.name, "task": self.config.task}
        if self.folder.is_complete:
            rows |= {name: f"{value:.4f}" for name, value in self.metrics.items() if isinstance(value, float)}
            rows["minutes"] = f"{self.result.seconds / 60:.1f}"
        cells = "".join(
            f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items()
        )
        return f"<table>{cells}</table>"


def load_run(
    path: str | Path, custom_objects: Mapping[str, Any] | None = None, *, trust: bool = False
) -> Run:
    """Open a run folder, or the adapters of a run.

    Args:
        path: A run folder; an interrupted run is fine as soon as it has a model. Or the file that
            `Run.save_adapters` wrote: the run that it is of predicts, evaluates on other data, and exports.
        custom_objects: The user's own Keras classes that the model's head is made of.
        trust: Load a SavedModel whose operations read files or run code.

    Raises:
        ConfigError: It is not a run folder, the run left no model, or its config sets `trust`; the backbone
            is not what the adapters were trained beside.
        FetchError: The file of adapters is damaged.
    """
    if Path(path).suffix == ".safetensors" and Path(path).is_file():
        from tlkit.workflows.adapters import load_adapters

        return load_adapters(Path(path), custom_objects, trust=trust)
    folder = RunFolder.open(path)
    if not folder.model.exists():
        raise ConfigError(f"{path} holds no model: the run is {folder.read_state()['status']}.")
    return Run(
        path=Path(path),
        config=load_config(folder.config).config,
        entry=ZooEntry.model_validate(read_yaml(folder.zoo_entry)),
        classes=tuple(folder.labels.read_text(encoding="utf-8").splitlines())
        if folder.labels.exists()
        else None,
        custom_objects=custom_objects or {},
        trust=trust,
    )


def as_run(run: Run | str | Path, *, trust: bool = False) -> Run:
    """The run itself, or the one in a folder; `trust` as of `load_run`."""
    if not isinstance(run, Run):
        return load_run(run, trust=trust)
    if not trust or run.trust or "model" in run.__dict__:
        return run
    return replace(run, trust=True)
