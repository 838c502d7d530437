"""Keras's optimizers with a rate and a past for every weight, and clipping that replicas agree on.

Private Keras API is used here alone: `_get_variable_index`, `_trainable_variables` and their `…_indices` by
`_var_key`, hooks (`_apply_weight_decay`, `_clip_gradients`, `_all_reduce_sum_gradients`,
`_update_model_variables_moving_average`, `_overwrite_model_variables_with_average_value`),
`_model_variables_moving_average` and Adafactor's `_r` and `_c`. Tried on Keras 3.12.0 and 3.15.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from keras.optimizers import Optimizer as Base  # what it will be mixed into
else:
    Base = object

UNDECAYED = re.compile("bias|gamma|beta")
TWIN = "twin"
AVERAGE = "average"  # what Keras calls the slot of a running average
STEPPED = "float32"  # the dtype that steps are taken in: halves lose small ones, and their squares


class StageOptimizer(Base):
    """What every optimizer of a stage does differently; to be mixed into a class of Keras.

    - Every weight is trained as if the optimizer had `multipliers[path]` times its rate, weight decay
      included. Biases and normalisation scales do not decay.
    - Gradients are clipped after they were summed over the replicas. Keras clips each replica's part, and so
      trains differently on two devices than on one.
    - Rows of an embedding that a batch uses several times have one gradient, their sum, before it is clipped
      or squared. Keras squares each part.
    - The bias correction of a weight counts that weight's own steps, `steps_before` this stage and in it.
      So one that carries its moments over goes on, and one that is new starts with steps no larger than at
      the beginning of a run.
    - Every step is taken in float32. A weight of another dtype, as SavedModels have, has a twin in float32
      that is trained, and is what the twin is rounded to. Keras computes with the weight's own dtype and the
      head's at once, which fails, and in halves would divide by squares that have become 0.

    Args:
        multipliers: Path of a weight → share of the learning rate; 1 where there is none.
    """

    _offset: Any = None

    def __init__(self, *args: Any, multipliers: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._multipliers = dict(multipliers or {})
        self.slots: list[tuple[str, str, keras.Variable]] = []

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._decays = [not UNDECAYED.search(variable.name) for variable in variables]
        # Variables, so that they are saved with the optimizer: paths can change when a model is loaded.
        self.steps_before = self.add_variable((len(variables),), dtype="int64", name="steps_before")
        self.rates = self.add_variable((len(variables),), initializer="ones", name="rates")
        self.rates.assign([self._multipliers.get(variable.path, 1.0) for variable in variables])
        self._twins: dict[int, keras.Variable] = {}
        for index, variable in enumerate(variables):
            if variable.dtype != STEPPED:
                twin = self.add_variable_from_reference(variable, name=TWIN)
                twin.assign(variable)
                self._trainable_variables_indices[self._var_key(twin)] = index
                self._twins[index] = twin

    @property
    def trained(self) -> list[keras.Variable]:
        """What the optimizer was built for, in its order."""
        return list(self._trainable_variables)

    @property
    def averages(self) -> list[keras.Variable]:
        """The running averages of `trained`; there with `use_ema=True`."""
        return list(self._model_variables_moving_average)

    def add_variable_from_reference(
        self, reference_variable: keras.Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> keras.Variable:
        slot = super().add_variable_from_reference(reference_variable, name=name, initializer=initializer)
        if name != TWIN:
            self.slots.append((reference_variable.path, name or "", slot))
        return slot

    def add_variable(self, shape: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> keras.Variable:
        is_float = dtype is None or tf.as_dtype(dtype).is_floating
        return super().add_variable(shape, *args, dtype=STEPPED if is_float else dtype, **kwargs)

    @property
    def iterations(self) -> Any:
        """Steps of this stage; while a weight is updated, those of the weight over all stages."""
        steps = super().iterations
        return steps if self._offset is None else steps + self._offset

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        if index not in self._twins:
            self._step(index, gradient, variable, learning_rate)
            return
        twin = self._twins[index].value
        # Where the weight was set by something else (averages, an earlier epoch), the twin follows it.
        is_kept = tf.cast(twin, variable.dtype) == variable
        twin.assign(tf.where(is_kept, twin, tf.cast(variable, STEPPED)))
        self._step(index, gradient, twin, learning_rate)
        variable.assign(tf.cast(twin, variable.dtype))

    def _step(self, index: int, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        rate = tf.cast(learning_rate, STEPPED) * self.rates[index]
        if self.weight_decay and self._decays[index]:
            variable.assign_sub(variable * tf.cast(self.weight_decay, STEPPED) * rate)
        self._offset = self.steps_before[index]
        try:
            super().update_step(gradient, variable, rate)
        finally:
            self._offset = None

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: a weight decays where it is updated, at its own rate."""

    def _clip_gradients(self, gradients: Any) -> Any:
        return gradients

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[tuple[Any, Any]]:
        cast = [
            (None if gradient is None else tf.cast(gradient, STEPPED), weight)
            for gradient, weight in grads_and_vars
        ]
        reduced = super()._all_reduce_sum_gradients(cast)
        gradients, variables = zip(*reduced, strict=True)
        summed = [_sum_rows(gradient) for gradient in gradients]
        clipped = super()._clip_gradients(summed)
        return list(zip(clipped, variables, strict=True))

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        super()._update_model_variables_moving_average(
            [self._twins.get(index, variable) for index, variable in enumerate(trainable_variables)]
        )

    def _overwrite_model_variables_with_average_value(self, trainable_variables: Any) -> None:
        for variable, average in zip(trainable_variables, self.averages, strict=True):
            variable.assign(average)  # Keras rounds to the dtype of the variable here, and there not


@keras.saving.register_keras_serializable("tlkit")
class StageAdam(StageOptimizer, keras.optimizers.Adam):
    pass


@keras.saving.register_keras_serializable("tlkit")
class StageAdamW(StageOptimizer, keras.optimizers.AdamW):
    pass


@keras.saving.register_keras_serializable("tlkit")
class StageSGD(StageOptimizer, keras.optimizers.SGD):
    pass


@keras.saving.register_keras_serializable("tlkit")
class StageLion(StageOptimizer, keras.optimizers.Lion):
    pass


@keras.saving.register_keras_serializable("tlkit")
class StageMuon(StageOptimizer, keras.optimizers.Muon):
    pass


@keras.saving.register_keras_serializable("tlkit")
class StageAdafactor(StageOptimizer, keras.optimizers.Adafactor):
    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        for variable, row, column in zip(variables, self._r, self._c, strict=True):
            if len(variable.shape) > 1:  # the others are dummies
                self.slots += [(variable.path, "row", row), (variable.path, "column", column)]


class LossScale(keras.optimizers.LossScaleOptimizer):
    """Scales the loss for float16, whose smallest numbers are larger than many gradients.

    A step whose gradients are not finite is skipped, whichever replica they are on. Keras looks at the first
    one's alone.
    """

    def check_finite(self, grads: Sequence[Any]) -> Any:
        finite = super().check_finite(grads)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~finite, tf.float32)) == 0.0


def stage_optimizer(model: keras.Model) -> StageOptimizer:
    """The optimizer of a compiled training model, also inside of one that scales the loss."""
    optimizer: StageOptimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return optimizer


def _sum_rows(gradient: Any) -> Any:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)
