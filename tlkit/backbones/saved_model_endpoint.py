"""How a loaded SavedModel is called: which tensors go in and come out, and which variables it uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tlkit.errors import ConfigError

Tensors = dict[str, Any]

# Changes of variables that were there before, not of lists and generators of random numbers.
_CHANGES = re.compile(
    r"Assign(Add|Sub)?VariableOp|ResourceScatter|ResourceStridedSliceAssign|Resource\w*Apply"
)
SIGNATURES = ("serving_default", "default", "serve")


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One way to call a loaded SavedModel.

    `inputs` and `outputs` are its tensors by name. `variables` are those that it computes with, in an order
    that is the same at every loading; `trainable` are those of them that training may change. `losses` are
    its regularisation losses, functions without arguments. `owner` is the loaded object: its variables and
    tables live as long as it does. `graphs` are the concrete functions that may be called. `not_dense` are
    outputs that are something else than dense tensors (ragged, sparse): they are listed, never features.
    """

    inputs: dict[str, tf.TensorSpec]
    outputs: dict[str, tf.TensorSpec]
    variables: tuple[tf.Variable, ...]
    trainable: tuple[tf.Variable, ...]
    losses: tuple[Callable[[], tf.Tensor], ...]
    owner: Any
    graphs: tuple[Any, ...]
    not_dense: dict[str, tf.TypeSpec]
    function: Callable[..., Any]

    def __call__(self, tensors: Mapping[str, Any], *, training: bool) -> Tensors:
        """Outputs by name. Numbers are cast to the dtypes that the SavedModel takes."""
        given = {name: _fit(tensors[name], spec) for name, spec in self.inputs.items()}
        return name_outputs(self.function(given, training))


def make_endpoint(loaded: Any, *, has_objects: bool = True) -> Endpoint:
    """The endpoint of a loaded SavedModel: the object itself where it can be called, else a signature.

    An object that can be called as in training alone is left for a signature, too. `has_objects` is false for
    the format of TensorFlow 1, which is never trained. Raises ConfigError where there is nothing to call, and
    where a call cannot leave the variables as they are.
    """
    endpoint = None
    if has_objects and callable(loaded) and hasattr(loaded.__call__, "concrete_functions"):
        endpoint = _callable_endpoint(loaded)
        if endpoint is None and not getattr(loaded, "signatures", {}):
            raise ConfigError(
                "The SavedModel was saved with training=True alone: its dropout and BatchNorm cannot be "
                "switched off, so it can neither be kept frozen nor evaluated. Save it with training=False, "
                "too"
            )
    return endpoint or _signature_endpoint(loaded, has_objects)


def name_outputs(outputs: Any, prefix: str = "") -> Tensors:
    """Nested outputs as a flat dict: the keys of dicts, and numbers in lists and tuples; "output" for one
    tensor without a name."""
    if isinstance(outputs, Mapping):
        items = [(str(key), value) for key, value in outputs.items()]
    elif isinstance(outputs, list | tuple):
        items = [(f"{prefix or 'output'}_{number}", value) for number, value in enumerate(outputs)]
    else:
        return {prefix or "output": outputs}
    named: Tensors = {}
    for name, value in items:
        named |= name_outputs(value, name)
    return named


def _callable_endpoint(loaded: Any) -> Endpoint | None:
    """None where every call that was saved is one for training."""
    function = loaded.__call__
    concrete = function.concrete_functions
    if not concrete:
        raise ConfigError("The SavedModel can be called, but it was saved without a traced call")
    names = list(function.function_type.parameters)
    calls = [_Call(each, names) for each in concrete]
    answering = [call for call in calls if not call.trains]
    if not answering:
        return None
    # The most general of those that answer: Keras saves one for each name that its input had.
    chosen = max(answering, key=lambda call: call.generality)
    has_training = chosen.asks_training or len(answering) < len(calls)
    if not chosen.asks_training:  # else what it changes, it changes in training
        _require_unchanging(chosen.function)

    def call(given: Mapping[str, Any], training: bool) -> Any:
        # Where there is no choice, what it was saved with.
        args, kwargs = chosen.arguments(given, training if has_training else None)
        return function(*args, **kwargs)

    variables = _used_variables(concrete)
    return Endpoint(
        inputs=chosen.inputs,
        outputs=_specs(chosen.function.structured_outputs),
        variables=variables,
        trainable=_trainable(loaded, variables),
        losses=tuple(each for each in getattr(loaded, "regularization_losses", ()) if callable(each)),
        owner=loaded,
        graphs=tuple(concrete),
        not_dense=_not_dense(chosen.function.structured_outputs),
        function=call,
    )


def _signature_endpoint(loaded: Any, has_objects: bool) -> Endpoint:
    signatures = dict(getattr(loaded, "signatures", {}))
    name = next((each for each in SIGNATURES if each in signatures), None)
    if name is None and len(signatures) == 1:
        name = next(iter(signatures))
    if name is None and signatures:
        one = sorted(signatures)[0]
        raise ConfigError(
            f"The SavedModel has the signatures {', '.join(sorted(signatures))}, and does not say which one "
            "answers: none is called serving_default. Save it again with the one that you want, such as "
            "model = tf.saved_model.load(FOLDER); tf.saved_model.save(model, NEW_FOLDER, "
            f"signatures={{'serving_default': model.signatures[{one!r}]}})"
        )
    if name is None:
        raise ConfigError(
            "The SavedModel can neither be called nor has it a signature: save it with one, "
            "tf.saved_model.save(model, FOLDER, signatures={'serving_default': …})"
        )
    function = signatures[name]
    if has_objects:
        _require_unchanging(function)
    variables = _used_variables([function]) if has_objects else tuple(loaded.variables)
    return Endpoint(
        inputs=dict(sorted(function.structured_input_signature[1].items())),
        outputs=_specs(function.structured_outputs),
        variables=variables,
        trainable=_trainable(loaded, variables) if has_objects else (),
        losses=(),
        owner=loaded,
        graphs=(function,),
        not_dense=_not_dense(function.structured_outputs),
        function=lambda given, training: function(**given),
    )


def _require_unchanging(function: Any) -> None:
    """Raise ConfigError where a call that is not for training changes variables: BatchNorm's statistics."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    found = sorted({node.op for node in nodes if _CHANGES.match(node.op)})
    if found:
        raise ConfigError(
            f"The SavedModel changes its own variables whenever it is called ({', '.join(found)}), so it can "
            "neither be kept frozen nor evaluated. Save it with training=False"
        )


class _Call:
    """One traced call of a SavedModel: where the tensors are in its arguments, and what the others were."""

    def __init__(self, function: Any, names: list[str]) -> None:
        self.function = function
        self.args, self.kwargs = function.structured_input_signature
        values = dict(zip(names, self.args, strict=False)) | dict(self.kwargs)
        place = names.index("training") if "training" in names else None
        self.training_at: int | str | None = place
        if "training" in self.kwargs:
            self.training_at = "training"
        self.trains = values.get("training") is True
        self.asks_training = isinstance(values.get("training"), tf.TensorSpec)
        several = sum(_has_tensors(value) for name, value in values.items() if name != "training") > 1
        self.paths: dict[str, tuple[Any, ...]] = {}
        self.inputs: dict[str, tf.TensorSpec] = {}
        for name, value in values.items():
            if name == "training":
                continue
            start: Any = names.index(name) if name not in self.kwargs else name
            for path, spec in _leaves(value, (start,)):
                last = path[-1]
                label = last if isinstance(last, str) else spec.name or f"input_{len(self.inputs)}"
                if len(path) == 1:
                    label = name if several else spec.name or name
                self.paths[label] = path
                self.inputs[label] = spec

    @property
    def generality(self) -> int:
        """How many sizes are open."""
        return sum(size is None for spec in self.inputs.values() for size in spec.shape or ())

    def arguments(self, given: Mapping[str, Any], training: bool | None) -> tuple[list[Any], dict[str, Any]]:
        """As they were traced, with these tensors. Without training it was False, None or left out."""
        places: dict[Any, Any] = {**dict(enumerate(self.args)), **self.kwargs}
        if self.asks_training:
            places[self.training_at] = tf.constant(bool(training))
        elif training:
            places[self.training_at] = True
        for name, path in self.paths.items():
            places[path[0]] = _put(places[path[0]], path[1:], given[name])
        return [places[number] for number in range(len(self.args))], {
            name: places[name] for name in places if isinstance(name, str)
        }


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], tf.TensorSpec]]:
    if isinstance(value, tf.TensorSpec):
        yield path, value
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key], (*path, key))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _leaves(each, (*path, number))


def _has_tensors(value: Any) -> bool:
    return any(True for _ in _leaves(value, ()))


def _put(value: Any, path: tuple[Any, ...], tensor: Any) -> Any:
    """`value` with `tensor` at `path`; containers are copied."""
    if not path:
        return tensor
    if isinstance(value, Mapping):
        return {**value, path[0]: _put(value[path[0]], path[1:], tensor)}
    copy = list(value)
    copy[path[0]] = _put(copy[path[0]], path[1:], tensor)
    return copy if isinstance(value, list) else tuple(copy)


def _specs(outputs: Any) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec(spec.shape, spec.dtype, name)
        for name, spec in name_outputs(outputs).items()
        if isinstance(spec, tf.TensorSpec | tf.Tensor)
    }


def _not_dense(outputs: Any) -> dict[str, tf.TypeSpec]:
    return {
        name: spec
        for name, spec in name_outputs(outputs).items()
        if isinstance(spec, tf.TypeSpec) and not isinstance(spec, tf.TensorSpec)
    }


def _used_variables(functions: Any) -> tuple[tf.Variable, ...]:
    """The variables that these functions capture, each once, in the order of the SavedModel."""
    found: dict[int, tf.Variable] = {}
    for function in functions:
        for variable in function.variables:
            found.setdefault(id(variable), variable)
    return tuple(found.values())


def _trainable(loaded: Any, variables: tuple[tf.Variable, ...]) -> tuple[tf.Variable, ...]:
    """Those that the object lists as trainable, or, where it lists none, by their own flags.

    Keras 3 lists copies of its variables beside those that its function captures; the list is of use only
    where it names captured ones.
    """
    listed = {id(variable) for variable in getattr(loaded, "trainable_variables", ())}
    if not listed & {id(variable) for variable in variables}:
        return tuple(variable for variable in variables if variable.trainable and _learns(variable))
    return tuple(variable for variable in variables if id(variable) in listed and _learns(variable))


def _learns(variable: tf.Variable) -> bool:
    return bool(variable.dtype.is_floating or variable.dtype.is_complex)


def _fit(tensor: Any, spec: tf.TensorSpec) -> Any:
    """A tensor in the dtype and the rank that a SavedModel takes; pictures are rounded for integers."""
    if tensor.dtype != spec.dtype:
        if spec.dtype.is_integer and tensor.dtype.is_floating:
            limits = tf.cast([spec.dtype.min, spec.dtype.max], tensor.dtype)
            tensor = tf.clip_by_value(tf.round(tensor), limits[0], limits[1])
        tensor = tf.cast(tensor, spec.dtype)
    if spec.shape.rank == 2 and tensor.shape.rank == 1 and spec.shape[1] in (1, None):
        tensor = tf.expand_dims(tensor, -1)  # texts as a column
    return tensor
