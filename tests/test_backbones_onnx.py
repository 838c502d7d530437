"""Weights from an ONNX file: numbers and names are read, nothing of the graph is run."""

import keras
import numpy as np
import pytest
from small_keras_hub import small_entry

from tlkit.backbones import load
from tlkit.backbones.dinov2_onnx import load_dinov2_onnx
from tlkit.backbones.onnx_file import _model_class, read_onnx
from tlkit.errors import FetchError

FLOAT32, FLOAT16, INT64 = 1, 10, 7


def write(path, tensors, linear=None):
    """An ONNX file with `tensors`, and with those of `linear` as PyTorch's exporter leaves them."""
    model = _model_class()()
    for name, value in tensors.items():
        add(model, name, value)
    for number, (name, value) in enumerate((linear or {}).items()):
        weight = f"onnx::MatMul_{number}"
        add(model, weight, value.T)
        model.graph.node.add(op_type="MatMul", input=["x", weight], output=[f"product{number}"])
        bias = f"{name.removesuffix('.weight')}.bias"
        inputs = [bias, f"product{number}"][:: 1 if number % 2 else -1]  # either order is found
        model.graph.node.add(op_type="Add", input=inputs, output=[f"sum{number}"])
    path.write_bytes(model.SerializeToString())
    return path


def add(model, name, value, data_type=FLOAT32):
    tensor = model.graph.initializer.add(name=name, data_type=data_type, dims=value.shape)
    tensor.raw_data = np.ascontiguousarray(value).tobytes()
    return tensor


def named(model, prefix="backbone."):
    """The weights of a small DINOv2 by the names and with the axes of PyTorch: plain ones, linear ones."""
    own, plain, linear = {weight.path: weight.numpy() for weight in model.weights}, {}, {}
    embeddings = f"{prefix}embeddings"
    plain[f"{embeddings}.cls_token"] = own["tokens/learned_tokens"]
    plain[f"{embeddings}.patch_embeddings.projection.weight"] = own["tokens/projection/kernel"].transpose(
        3, 2, 0, 1
    )
    plain[f"{embeddings}.patch_embeddings.projection.bias"] = own["tokens/projection/bias"]
    plain["onnx::Concat_1"], plain["onnx::Reshape_2"] = np.split(own["tokens/positions"], [1], axis=1)
    plain[f"{prefix}layernorm.weight"], plain[f"{prefix}layernorm.bias"] = own["norm/gamma"], own["norm/beta"]
    for number in (1, 2):
        to, ours = f"{prefix}encoder.layer.{number - 1}", f"block{number}/layer"
        for norm in ("norm1", "norm2"):
            plain[f"{to}.{norm}.weight"] = own[f"{ours}/{norm}/gamma"]
            plain[f"{to}.{norm}.bias"] = own[f"{ours}/{norm}/beta"]
        for scale in ("layer_scale1", "layer_scale2"):
            plain[f"{to}.{scale}.lambda1"] = own[f"{ours}/{scale}/lambda1"]
        for name in ("query", "key", "value"):
            kernel = own[f"{ours}/attention/attention/{name}/kernel"]
            linear[f"{to}.attention.attention.{name}.weight"] = kernel.reshape(16, 16).T
            plain[f"{to}.attention.attention.{name}.bias"] = own[
                f"{ours}/attention/attention/{name}/bias"
            ].reshape(16)
        output = f"{ours}/attention/attention/attention_output"
        linear[f"{to}.attention.output.dense.weight"] = own[f"{output}/kernel"].reshape(16, 16).T
        plain[f"{to}.attention.output.dense.bias"] = own[f"{output}/bias"]
        for name in ("fc1", "fc2"):
            linear[f"{to}.mlp.{name}.weight"] = own[f"{ours}/mlp/{name}/kernel"].T
            plain[f"{to}.mlp.{name}.bias"] = own[f"{ours}/mlp/{name}/bias"]
    return plain, linear


@pytest.fixture
def model():
    model = load(small_entry("DINOV2Backbone", num_register_tokens=0), weights=False).model
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    return model


def test_the_weights_of_a_dinov2_come_back(model, tmp_path):
    plain, linear = named(model)
    decoder = {"decoder.conv.weight": np.ones((3, 2), "float32")}  # left out
    path = write(tmp_path / "model.onnx", {**plain, **decoder}, linear)
    other = keras.models.clone_model(model)
    load_dinov2_onnx(other, path)
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_table_of_positions_that_has_its_name_is_taken(model, tmp_path):
    plain, linear = named(model)
    table = np.concatenate([plain.pop("onnx::Concat_1"), plain.pop("onnx::Reshape_2")], axis=1)
    plain["backbone.embeddings.position_embeddings"] = table
    load_dinov2_onnx(model, write(tmp_path / "model.onnx", plain, linear))
    np.testing.assert_array_equal(model.get_layer("tokens").positions, table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.pop("backbone.layernorm.bias"), "lacks the tensor 'backbone.layernorm.bias'"),
        (lambda plain: plain.pop("backbone.embeddings.cls_token"), "is not a DINOv2"),
        (lambda plain: plain.pop("onnx::Concat_1"), "has no table of positions of the shape"),
        (
            lambda plain: plain.update({"backbone.layernorm.bias": np.zeros(4, "float32")}),
            r"'backbone.layernorm.bias' in .* has the shape \(4,\); 'norm/beta' needs \(16,\)",
        ),
        (
            lambda plain: plain.update({"backbone.encoder.layer.2.norm1.bias": np.zeros(16, "float32")}),
            "tensors that the encoder has no place for",
        ),
    ],
)
def test_a_file_of_another_model_is_refused(model, change, message, tmp_path):
    plain, linear = named(model)
    change(plain)
    with pytest.raises(FetchError, match=message):
        load_dinov2_onnx(model, write(tmp_path / "model.onnx", plain, linear))


def test_half_precision_becomes_float32_and_integers_are_left_out(tmp_path):
    model = _model_class()()
    add(model, "half", np.array([0.5, -2.0], "float16"), FLOAT16)
    add(model, "shape", np.array([1, 2], "int64"), INT64)
    model.graph.initializer.add(name="plain", data_type=FLOAT32, dims=[2, 1], float_data=[1.5, 2.5])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    tensors = read_onnx(tmp_path / "model.onnx")
    assert {name: (value.dtype, value.tolist()) for name, value in tensors.items()} == {
        "half": (np.float32, [0.5, -2.0]),
        "plain": (np.float32, [[1.5], [2.5]]),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"dims": [3]},
        {"dims": [-2, -1]},
        {"dims": [2**40, 2**40]},
        {"raw_data": b"abc"},
        {"raw_data": b""},
    ],
    ids=str,
)
def test_a_tensor_that_lies_about_its_shape_is_refused(change, tmp_path):
    model = _model_class()()
    tensor = add(model, "a", np.ones(2, "float32"))
    for name, value in change.items():
        tensor.ClearField(name)
        if name == "dims":
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FetchError, match="is damaged: 'a' has the shape"):
        read_onnx(tmp_path / "model.onnx")


def test_a_tensor_in_another_file_is_not_read(tmp_path):
    model = _model_class()()
    tensor = model.graph.initializer.add(name="a", data_type=FLOAT32, dims=[2])
    tensor.data_location = 1
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FetchError, match="keeps 'a' in another file"):
        read_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x80\x04cos\nsystem\n.", b"\xff" * 100])
def test_what_is_not_onnx_is_one_line(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(FetchError, match="is not a") as caught:
        read_onnx(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
