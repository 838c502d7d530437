"""A Keras 3 layer around a loaded SavedModel, which holds its variables as its own weights.

hub.KerasLayer belongs to Keras 2 and cannot be part of a Keras 3 model (tensorflow/hub issues 903 and 920),
and Keras's TFSMLayer names its variables so that Adam cannot make its slots, and cannot tell a SavedModel
that it is training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tlkit.backbones.saved_model_endpoint import Endpoint
from tlkit.backbones.saved_model_names import batch_norm_names, variable_names
from tlkit.backbones.saved_model_needs import needed_variables
from tlkit.backbones.saved_model_open import OpenedSavedModel, open_saved_model
from tlkit.backbones.saved_model_trial import output_shapes
from tlkit.errors import ConfigError

_Loss = tuple[Callable[[], Any], Sequence[keras.Variable]]  # and the variables that it is of


class SavedModelLayer(keras.layers.Layer):
    """Calls a SavedModel: its inputs by name, or the one input, to its outputs by the names of features.

    Its trainable variables, as far as the outputs depend on them, are the layer's trainable weights, the
    others its non-trainable ones: it freezes and unfreezes like any layer, and every optimizer trains it. It
    is told that it is training only where it is: in `fit`, unfrozen, and, where it has BatchNorm, with that
    unfrozen, too (`batch_norm`, a layer in the layer, holds statistics, scale and shift). Its regularisation
    losses are those of the layer as long as a variable that they are of is trained.

    Build it in the scope of the strategy that trains it. A `.keras` file names the SavedModel by its hash; it
    is looked for beside the file, in the folder with the layer's name (see `saved_model_objects`).

    Args:
        opened: From `open_saved_model`.
        outputs: Which output of the SavedModel each feature is; None: all, by their own names.
    """

    def __init__(
        self, opened: OpenedSavedModel, *, outputs: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        # Not tracked, which a loaded object would be: its functions would be saved with the layer.
        self._opened = _Untracked(opened)
        self.supports_jit = False
        endpoint = opened.endpoint
        self.outputs = dict(outputs) if outputs else {name: name for name in endpoint.outputs}
        self.shapes = output_shapes(endpoint, list(self.outputs.values()))
        trainable = frozenset(id(each) for each in endpoint.trainable)
        self._learning = trainable & needed_variables(endpoint, list(self.outputs.values()))
        names = variable_names(endpoint.variables)
        normalising = batch_norm_names(names)
        ready = list(zip(names, endpoint.variables, strict=True))
        self._adoptable = _Untracked([each for each in ready if each[0] not in normalising])
        self.batch_norm = (
            _BatchNormWeights([each for each in ready if each[0] in normalising], self._learning)
            if normalising
            else None
        )

    @property
    def opened(self) -> OpenedSavedModel:
        return self._opened.value  # type: ignore[no-any-return]

    @property
    def fine_tunes(self) -> bool:
        """Whether training can change it."""
        return bool(self._learning)

    def build(self, input_shape: Any = None) -> None:
        self.adopted = _adopt(self._adoptable.value, self._learning)
        if self.batch_norm is not None:
            self.batch_norm.build(None)
        _attach_losses(self.opened.endpoint, self.weights)
        if not self.trainable:
            # Saved while frozen. Keras ignores `trainable = False` where it is so already (tried on 3.15.1).
            for weight in self.weights:
                weight.trainable = False

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        endpoint = self.opened.endpoint
        given = inputs if isinstance(inputs, Mapping) else {next(iter(endpoint.inputs)): inputs}
        learns = bool(training) and self.trainable
        if self.batch_norm is not None:
            learns = learns and self.batch_norm.trainable
        answers = endpoint(given, training=learns)
        features = {feature: answers[name] for feature, name in self.outputs.items()}
        for feature, tensor in features.items():
            tensor.set_shape(self.shapes[self.outputs[feature]])
        return features

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        specs = self.opened.endpoint.outputs
        return {
            feature: keras.KerasTensor(self.shapes[name], specs[name].dtype.name, name=feature)
            for feature, name in self.outputs.items()
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sha256": self.opened.sha256, "outputs": dict(self.outputs)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SavedModelLayer:
        raise ConfigError(
            f"The model holds the SavedModel {config.get('name')!r}, which lies beside it in its run folder: "
            "open the folder, with tlkit.load"
        )


def saved_model_objects(folder: Path, *, trust: bool = False) -> dict[str, type]:
    """Custom objects for `keras.saving.load_model`: SavedModels are found in `folder`, each in the folder
    with its layer's name, and must have the hash that the `.keras` file names. `trust` as of
    `open_saved_model`."""

    class InFolder(SavedModelLayer):
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> SavedModelLayer:
            name = config["name"]
            if Path(name).name != name or name == "..":
                raise ConfigError(f"A SavedModel's folder is a plain name, received {name!r}")
            opened = open_saved_model(folder / name, config["sha256"], trust=trust)
            return SavedModelLayer(opened, **{key: value for key, value in config.items() if key != "sha256"})

    # The class itself is not registered with Keras, which would take that instead (tried on Keras 3.15.1).
    return {SavedModelLayer.__name__: InFolder}


def saved_model_layers(model: keras.Model) -> list[SavedModelLayer]:
    """The layers of a model that hold SavedModels, nested ones included."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, SavedModelLayer)]


class _BatchNormWeights(keras.layers.Layer):
    """Statistics, scales and shifts of the BatchNorms in a SavedModel, which freeze together."""

    def __init__(self, adoptable: Sequence[tuple[str, tf.Variable]], trainable: frozenset[int]) -> None:
        super().__init__(name="batch_norm")
        self._adoptable = _Untracked((list(adoptable), trainable))

    def build(self, input_shape: Any = None) -> None:
        self.adopted = _adopt(*self._adoptable.value)


def is_batch_norm(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a BatchNorm, or holds the weights of those in a SavedModel."""
    return isinstance(layer, keras.layers.BatchNormalization | _BatchNormWeights)


class _Untracked:
    """A value that neither Keras nor TensorFlow looks into."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _adopt(adoptable: Sequence[tuple[str, tf.Variable]], trainable: frozenset[int]) -> list[keras.Variable]:
    """Keras variables that are these variables, not copies of them; `trainable` holds ids."""
    adopted = []
    for name, variable in adoptable:
        weight = keras.Variable(
            variable, dtype=variable.dtype.name, trainable=id(variable) in trainable, name=name
        )
        adopted.append(weight)
        if weight.value is not variable:
            raise ConfigError(f"Keras {keras.__version__} copies the variable {name!r} instead of using it")
    return adopted


def _attach_losses(endpoint: Endpoint, weights: Sequence[keras.Variable]) -> None:
    """Each regularisation loss becomes part of the regularisers of the variables that it is of.

    So it is counted once, however often the layer is called, and not at all where all of them are frozen. One
    that does not say what it is of is taken to be of every variable.
    """
    losses: dict[int, list[_Loss]] = {}
    for loss in endpoint.losses:
        used = {
            id(each) for function in getattr(loss, "concrete_functions", ()) for each in function.variables
        }
        of = [weight for weight in weights if not used or id(weight.value) in used]
        for weight in of:
            losses.setdefault(id(weight), []).append((loss, of))
    for weight in weights:
        if id(weight) in losses:
            weight.regularizer = _Regularizer(weight, losses[id(weight)])


class _Regularizer:
    """The sum of a SavedModel's own losses of one variable; of those of several, where it is the first that
    is trained. Keras asks for those of trained variables only."""

    def __init__(self, weight: keras.Variable, losses: Sequence[_Loss]) -> None:
        self.weight = weight
        self.losses = losses

    def __call__(self, value: Any) -> Any:
        counted = [
            loss
            for loss, of in self.losses
            if next((each for each in of if each.trainable), None) is self.weight
        ]
        return tf.add_n([tf.cast(loss(), "float32") for loss in counted]) if counted else tf.zeros(())
