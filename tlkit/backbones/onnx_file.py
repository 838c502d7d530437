"""Read the tensors of an ONNX file: numbers and names alone, nothing of the graph is run.

The file is a protocol buffer. The `onnx` package would read it too, but brings a compiler of its own for it;
protobuf, which TensorFlow needs anyway, reads it from a description of the few fields that are wanted.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from tlkit.errors import FetchError

Array = npt.NDArray[np.float32]

_FLOATS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}  # of TensorProto.DataType
_EXTERNAL = 1
_Field = descriptor_pb2.FieldDescriptorProto
# Numbers and types of the fields as onnx.proto defines them.
_MESSAGES = {
    "Tensor": {
        "dims": (1, _Field.TYPE_INT64, True),
        "data_type": (2, _Field.TYPE_INT32, False),
        "float_data": (4, _Field.TYPE_FLOAT, True),
        "name": (8, _Field.TYPE_STRING, False),
        "raw_data": (9, _Field.TYPE_BYTES, False),
        "data_location": (14, _Field.TYPE_INT32, False),
    },
    "Node": {
        "input": (1, _Field.TYPE_STRING, True),
        "output": (2, _Field.TYPE_STRING, True),
        "op_type": (4, _Field.TYPE_STRING, False),
    },
    "Graph": {"node": (1, "Node", True), "initializer": (5, "Tensor", True)},
    "Model": {"graph": (7, "Graph", False)},
}


def read_onnx(path: Path) -> dict[str, Array]:
    """The floating-point tensors of an ONNX file, by name, as float32.

    PyTorch's exporter leaves the weight of a linear layer without its name: it gets the name that belongs to
    the bias which is added behind it, and PyTorch's order of axes, (out, in).
    Raises FetchError for a file that is not ONNX, is damaged, or keeps its tensors in other files.
    """
    model = _model_class()()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise FetchError(f"{path} is not a whole ONNX file: {error}") from error
    tensors = {each.name: _array(each, path) for each in model.graph.initializer if each.data_type in _FLOATS}
    if not tensors:
        raise FetchError(f"{path} is not an ONNX file with weights")
    return tensors | _linear_weights(model.graph, tensors)


def _linear_weights(graph: Any, tensors: dict[str, Array]) -> dict[str, Array]:
    products = {}
    for node in graph.node:
        if node.op_type == "MatMul" and len(node.input) == 2 and node.input[1] in tensors and node.output:
            products[node.output[0]] = node.input[1]
    named = {}
    for node in graph.node:
        biases = [name for name in node.input if name in tensors and name.endswith(".bias")]
        weights = [products[name] for name in node.input if name in products]
        if node.op_type == "Add" and len(biases) == len(weights) == 1:
            named[f"{biases[0].removesuffix('.bias')}.weight"] = tensors[weights[0]].T
    return named


def _array(tensor: Any, path: Path) -> Array:
    if tensor.data_location == _EXTERNAL:
        raise FetchError(f"{path} keeps {tensor.name!r} in another file, which is not read")
    dtype, shape = _FLOATS[tensor.data_type], tuple(tensor.dims)
    values = np.frombuffer(tensor.raw_data, dtype) if _is_whole(tensor.raw_data, dtype) else np.empty(0)
    if not tensor.raw_data:
        values = np.asarray(tensor.float_data, "float32")
    if min(shape, default=1) < 0 or math.prod(shape) != values.size:
        raise FetchError(
            f"{path} is damaged: {tensor.name!r} has the shape {shape} and {values.size} numbers"
        )
    return values.astype("float32").reshape(shape)


def _is_whole(raw: bytes, dtype: np.dtype[Any]) -> bool:
    return len(raw) % dtype.itemsize == 0


def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="tlkit_onnx.proto", package="tlkit", syntax="proto2")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind, repeated) in fields.items():
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            field = message.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".tlkit.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tlkit.Model"))
