"""Weights and SavedModels that somebody made to do harm."""

import json
import pickle
import struct
import zipfile

import numpy as np
import tensorflow as tf

from tlkit.backbones.checked_keras import load_checked_model
from tlkit.backbones.pth import read_state_dict
from tlkit.backbones.saved_model_open import open_saved_model
from tlkit.zoo.safetensors_files import tensor_files

from hostile import registering

MAKERS = {}
hostile = registering(MAKERS)


# -- pickles


def zipped_pth(path, content, storage=b""):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", content)
        archive.writestr("w/data/0", storage)
    return path


@hostile("pickle in a .pth")
def _(folder, trap):
    path = zipped_pth(folder / "w.pth", pickle.dumps({"weight": trap}))
    return lambda: read_state_dict(path), "it asks for (posix|os).mkdir, which was refused"


@hostile("pickle in a .pth of the old format")
def _(folder, trap):
    path = folder / "w.pth"
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"weight": trap}, []]
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    return lambda: read_state_dict(path), "it asks for (posix|os).mkdir, which was refused"


@hostile("eval in a .pth")
def _(folder, trap):
    code = f"__import__('os').mkdir({str(trap.path)!r})"
    path = zipped_pth(folder / "w.pth", b"cbuiltins\neval\n(V" + code.encode() + b"\ntR.")
    return lambda: read_state_dict(path), "it asks for builtins.eval, which was refused"


@hostile("a way through torch to os in a .pth")
def _(folder, trap):
    dotted = b"\x80\x04\x8c\x05torch\x8c\x14serialization.os.mkdir"
    path = zipped_pth(folder / "w.pth", dotted[:-22] + b"\x8c\x16serialization.os.mkdir\x93.")
    return lambda: read_state_dict(path), "not a PyTorch state dict"


@hostile("a storage in a .pth that is larger than the file")
def _(folder, trap):
    size = 10**12
    content = (
        b"(S'weight'\nctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\n"
        + f"L{size}L\ntQI0\n(I1\nt(I1\nttRd.".encode()
    )
    path = zipped_pth(folder / "w.pth", content, b"1234")
    return lambda: read_state_dict(path), f"storage '0' has 4 bytes instead of {4 * size}"


@hostile("Python objects in an .npy")
def _(folder, trap):
    np.save(folder / "w.npy", np.array([trap], object), allow_pickle=True)
    return lambda: load_checked_model(folder / "w.npy"), "of Python objects, which is a pickle"


@hostile("Python objects in an .npz")
def _(folder, trap):
    np.savez(folder / "w.npz", whole=np.zeros(3), weight=np.array([trap], object))
    return lambda: load_checked_model(folder / "w.npz"), "of Python objects, which is a pickle"


@hostile("a pickle that is called .keras")
def _(folder, trap):
    (folder / "m.keras").write_bytes(pickle.dumps(trap))
    return lambda: load_checked_model(folder / "m.keras"), "is a pickle, which could run code"


@hostile("a Hugging Face folder with pickled weights")
def _(folder, trap):
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(trap))
    return lambda: tensor_files(folder), "is a pickle and could execute code"


# -- safetensors


def safetensors_folder(folder, header, data=b"", length=None):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(content) if length is None else length)
    (folder / "model.safetensors").write_bytes(size + content + data)
    return lambda: tensor_files(folder)


def tensor_at(start, end, shape=(2,)):
    return {"w": {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}}


@hostile("safetensors with a header that is longer than the file")
def _(folder, trap):
    return safetensors_folder(folder, tensor_at(0, 8), b"x" * 8, length=2**60), "not a whole safetensors file"


@hostile("safetensors with a tensor beyond the end")
def _(folder, trap):
    return safetensors_folder(folder, tensor_at(10**9, 10**9 + 8), b"x" * 8), "not a whole safetensors file"


@hostile("safetensors with a shape that its bytes do not fill")
def _(folder, trap):
    return safetensors_folder(folder, tensor_at(0, 8, (10**9, 10**9)), b"x" * 8), "not a whole safetensors"


@hostile("safetensors with tensors that overlap")
def _(folder, trap):
    header = {**tensor_at(0, 8), "v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}
    return safetensors_folder(folder, header, b"x" * 12), "not a whole safetensors file"


@hostile("safetensors with a header that is no JSON")
def _(folder, trap):
    return safetensors_folder(folder, b"\x80\x04pickle"), "not a whole safetensors file"


@hostile("an index of safetensors that names a file elsewhere")
def _(folder, trap):
    index = {"weight_map": {"w": "../../../etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return lambda: tensor_files(folder), "names a file outside its folder: '../../../etc/passwd'"


# -- SavedModels


def saved_model(folder, operation):
    """A SavedModel of one layer that does `operation` when it is called."""

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.weight = tf.Variable(tf.ones((3, 2)))

        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32)])
        def __call__(self, x):
            with tf.control_dependencies([operation()]):
                return x @ self.weight

    tf.saved_model.save(Model(), str(folder / "model"))
    return lambda: open_saved_model(folder / "model")


@hostile("a SavedModel that reads files")
def _(folder, trap):
    return saved_model(folder, lambda: tf.io.read_file("/etc/passwd")), "it holds ReadFile, .*--trust"


@hostile("a SavedModel that writes files")
def _(folder, trap):
    return saved_model(folder, lambda: tf.io.write_file(str(trap.path), "x")), "it holds WriteFile, .*--trust"


@hostile("a SavedModel that runs Python")
def _(folder, trap):
    def run():
        return tf.py_function(lambda: trap.path.mkdir(), [], [])

    return saved_model(folder, lambda: tf.group(run())), "it holds EagerPyFunc, .*--trust"


@hostile("a SavedModel that lists files, in a branch")
def _(folder, trap):
    def list_files():
        return tf.cond(
            tf.random.uniform(()) > 2, lambda: tf.io.matching_files("/*"), lambda: tf.constant([""])
        )

    return saved_model(folder, list_files), "it holds MatchingFiles, .*--trust"
