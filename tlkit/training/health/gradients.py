"""What gradients, updates and activations look like in each layer group, once an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
import tensorflow as tf

from tlkit.backbones.graph import is_functional, replay
from tlkit.data import make_pipeline, rows_of_batch
from tlkit.plans import HEAD, Stage
from tlkit.results import write_csv
from tlkit.training.cache.boundary import FEATURES, Parts
from tlkit.training.cache.features import Features
from tlkit.training.trainable import Place, Trainable
from tlkit.training.unchanged import variables_unchanged

RELUS = ("relu", "relu6")
COLUMNS = (
    "stage",
    "epoch",
    "group",
    "trained",
    "learning_rate",
    "gradient_norm",
    "weight_norm",
    "update_ratio",
    "dead_relu_share",
    "activation_scale",
)


class GradientHealth(keras.callbacks.Callback):
    """Measure each layer group in the middle of every epoch, and keep a table in the run folder.

    A row for each epoch and layer group: the norm of the gradient before clipping, the norm of the weights,
    that of the update in this step as a share of it, the share of ReLU channels that are zero everywhere, and
    the root mean square of what the group gives. A frozen group has no gradient, and its columns are empty.

    The gradient is that of one batch, the same in every epoch and without augmentation. Training is not
    changed: what the measurement moves (random states of layers, statistics) is put back, bit for bit.

    Args:
        run: What all stages share.
        stage: The stage that is being trained. Where gradients and activations cannot be measured, `skipped`
            says why, and their columns are empty.
        place: Where it stands.
        folder: The run folder; the table is `logs/gradient_health.csv`.
        features: Where the stage reads stored features.
    """

    def __init__(
        self,
        run: Trainable,
        stage: Stage,
        place: Place,
        folder: Path,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.run = run
        self.stage = stage
        self.file = health_file(folder)
        self.batch: Any = _first_batch(run, place, features)
        self.group_of = {path: group.name for group in run.groups for path in group.weights}
        self.before = _stages_before(self.file, stage) if place.index else None
        self.rows: list[dict[str, Any]] = []
        self.measured: dict[str, dict[str, float]] = {}
        self.weights: list[npt.NDArray[Any]] = []
        self.rate = math.nan
        self.epoch = 0
        self.skipped = ""

    @property
    def table(self) -> pd.DataFrame:
        """The rows of this stage so far."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.params["steps"] // 2:
            try:
                self.measured = {} if self.skipped else self._measure()
            except Exception as error:  # somebody's own layer, or no memory: no reason to end a training
                self.measured = {}
                self.skipped = (str(error).splitlines() or [type(error).__name__])[0]
            self.rate = float(self.model.optimizer.learning_rate.numpy())
            self.weights = [weight.numpy() for weight in self.model.trainable_variables]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self.params["steps"] // 2:
            self._add_rows()
            self.weights = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        tables = [table for table in (self.before, self.table) if table is not None]
        write_csv(self.file, pd.concat(tables, ignore_index=True))

    def _add_rows(self) -> None:
        squares: dict[str, list[tuple[float, float]]] = {}
        for variable, before in zip(self.model.trainable_variables, self.weights, strict=True):
            was = before.astype("float64")
            pair = (float(np.sum(was**2)), float(np.sum((variable.numpy() - was) ** 2)))
            squares.setdefault(self.group_of.get(variable.path, HEAD), []).append(pair)
        for group in (*(group.name for group in self.run.groups), HEAD):
            pairs = squares.get(group, [])
            weight_norm = math.sqrt(sum(weight for weight, _ in pairs))
            update_norm = math.sqrt(sum(update for _, update in pairs))
            values = {
                "weight_norm": weight_norm,
                "update_ratio": update_norm / weight_norm if weight_norm else math.nan,
            }
            self.rows.append(
                {
                    "stage": self.stage.name,
                    "epoch": self.epoch + 1,
                    "group": group,
                    "trained": bool(pairs),
                    **(
                        {"learning_rate": self.rate, **values, **self.measured.get(group, {})}
                        if pairs
                        else {}
                    ),
                }
            )

    def _measure(self) -> dict[str, dict[str, float]]:
        """Gradient norm, dead ReLUs and activation scale, by group."""
        strategy = self.run.strategy
        parts = self.model.parts
        model = self.run.model if parts is None else parts.upper
        moving = [variable for variable in model.variables if not variable.trainable]
        with variables_unchanged(moving, strategy):
            # In a replica, as in training: on several of them all measure the same batch, and one is asked.
            results = strategy.run(self._measure_batch, args=(model, parts))
        return {
            group: {name: float(strategy.experimental_local_results(value)[0]) for name, value in of.items()}
            for group, of in results.items()
        }

    def _measure_batch(self, model: keras.Model, parts: Parts | None) -> dict[str, dict[str, tf.Tensor]]:
        inputs, targets, sample_weight = keras.utils.unpack_x_y_sample_weight(self.batch)
        if parts is not None and not (isinstance(inputs, Mapping) and FEATURES in inputs):
            inputs = parts.lower(inputs, training=False)
        variables = self.model.trainable_variables
        watch = Activations(self._groups_of_layers(), default=HEAD)
        with tf.GradientTape() as tape:
            outputs = replay(model, _known_inputs(model, inputs), watch)
            loss = self.model.compute_loss(inputs, targets, outputs, sample_weight)
            loss *= self.run.n_replicas  # Keras has divided by it
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        squares: dict[str, list[tf.Tensor]] = {}
        for variable, gradient in zip(variables, gradients, strict=True):
            if gradient is not None:
                dense = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
                squares.setdefault(self.group_of.get(variable.path, HEAD), []).append(tf.reduce_sum(dense**2))
        found: dict[str, dict[str, tf.Tensor]] = {
            group: {"gradient_norm": tf.sqrt(tf.add_n(of_group))} for group, of_group in squares.items()
        }
        for group, values in watch.summary().items():
            found.setdefault(group, {}).update(values)
        return found

    def _groups_of_layers(self) -> dict[int, str]:
        return {id(layer): group.name for group in self.run.groups for layer in group.layers}


class Activations:
    """Calls the operations of a model one by one, as in training, and keeps what they give, by layer group.

    An operation without weights belongs to the group of the one before it; a layer with weights that is in no
    group, and all after it, to `default`.
    """

    def __init__(self, groups: Mapping[int, str], default: str) -> None:
        self.groups = groups
        self.default = default
        self.group = ""
        self.last: dict[str, tf.Tensor] = {}
        self.dead: dict[str, list[tf.Tensor]] = {}

    def __call__(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        if is_functional(operation):
            return replay(operation, args[0], self)
        layers = list(operation._flatten_layers()) if isinstance(operation, keras.layers.Layer) else []
        groups = [self.groups[id(layer)] for layer in layers if id(layer) in self.groups]
        if groups or getattr(operation, "weights", None):
            self.group = groups[-1] if groups else self.default
        if getattr(operation, "_call_has_training_arg", False):
            kwargs["training"] = True  # what `fit` passes down, whatever was recorded
        outputs = operation(*args, **kwargs)
        values = [each for each in tf.nest.flatten(outputs) if each.dtype.is_floating]
        if values:
            group = self.group or next(iter(self.groups.values()), self.default)
            self.last[group] = tf.cast(tf.stop_gradient(values[-1]), tf.float32)
            if _is_relu(operation):
                output = self.last[group]
                highest = tf.reduce_max(tf.reshape(output, [-1, output.shape[-1]]), axis=0)
                self.dead.setdefault(group, []).append(tf.cast(highest <= 0.0, tf.float32))
        return outputs

    def summary(self) -> dict[str, dict[str, tf.Tensor]]:
        """Scale of what each group gives, and the share of its ReLU channels that never fired."""
        found = {
            group: {"activation_scale": tf.sqrt(tf.reduce_mean(value**2))}
            for group, value in self.last.items()
        }
        for group, dead in self.dead.items():
            found[group]["dead_relu_share"] = tf.reduce_mean(tf.concat(dead, axis=0))
        return found


def health_file(folder: Path) -> Path:
    """The table of all stages of a run."""
    return folder / "logs" / "gradient_health.csv"


def _stages_before(file: Path, stage: Stage) -> pd.DataFrame | None:
    """The rows of other stages: those of this one are measured again, or put back, where it begins anew."""
    if not file.exists():
        return None
    table = pd.read_csv(file)
    return table[table["stage"] != stage.name]


def _is_relu(operation: Any) -> bool:
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", "")
    return isinstance(operation, keras.layers.ReLU) or name in RELUS or _kind(operation) in RELUS


def _kind(operation: Any) -> str:
    return "" if isinstance(operation, keras.layers.Layer) else type(operation).__name__.lower()


def _known_inputs(model: keras.Model, inputs: Any) -> Any:
    """Those that the model takes; a batch may hold more."""
    if isinstance(inputs, Mapping) and isinstance(model.input, Mapping):
        return {name: inputs[name] for name in model.input}
    return inputs


def _first_batch(run: Trainable, place: Place, features: Features | None) -> Any:
    """The first batch of a stage as it is, without augmentation: nothing is drawn for it."""
    rows = np.asarray(rows_of_batch(run.plan_batches(place.index), place.first_epoch, 0))
    rows = rows[: run.global_batch_size]
    examples = run.dataset.splits["train"].take(rows)
    views = run.views
    pipeline = make_pipeline(
        examples,
        run.preprocessing,
        global_batch_size=len(rows),
        training=False,
        sample_weights=None if run.example_weights is None else np.asarray(run.example_weights)[rows],
        inputs_of=None if features is None or views is None else features.reader(examples, views),
    )
    return next(iter(pipeline))
