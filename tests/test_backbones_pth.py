"""Reading `.pth` files: both formats, written here by hand, and hostile ones."""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from tlkit.backbones import pth
from tlkit.backbones.pth import read_state_dict
from tlkit.errors import FetchError


class Global:
    """Pickles as the global `module.name`, whether or not it can be imported."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Rebuilt:
    """Pickles as a call of a global, like a tensor does."""

    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments


class Storage:
    def __init__(self, key, array, kind="FloatStorage"):
        self.key, self.array, self.kind = key, array, kind


class Pickler(pickle._Pickler):
    """Python's own pickler, taught what PyTorch writes."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Rebuilt):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(b"R")
        elif isinstance(obj, Storage):
            size = obj.array.size
            self.save(("storage", Global("torch", obj.kind), obj.key, "cpu", size, *self.extra))
            self.write(b"Q")
        else:
            super().save(obj, save_persistent_id)

    extra = ()


class LegacyPickler(Pickler):
    extra = (None,)


def tensor(key, array, offset=0, shape=None, strides=None, kind="FloatStorage"):
    shape = array.shape if shape is None else shape
    strides = tuple(step // array.itemsize for step in array.strides) if strides is None else strides
    arguments = (Storage(key, array, kind), offset, tuple(shape), tuple(strides), False, OrderedDict())
    return Rebuilt(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def write_zip(path, content, storages, pickler=Pickler):
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("model/data.pkl", "w") as file:
            pickler(file, protocol=2).dump(content)
        for key, array in storages.items():
            archive.writestr(f"model/data/{key}", array.tobytes())
    return path


def write_legacy(path, content, storages):
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        LegacyPickler(file, protocol=2).dump(content)
        pickle.dump(list(storages), file, protocol=2)
        for array in storages.values():
            file.write(struct.pack("<q", array.size) + array.tobytes())
    return path


FLOATS = np.arange(24, dtype="<f4").reshape(2, 3, 4)
LONG = np.array([7], dtype="<i8")


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_both_formats_give_equal_tensors(tmp_path, write):
    content = OrderedDict(
        weight=tensor("0", FLOATS),
        steps=tensor("1", LONG, shape=(), strides=(), kind="LongStorage"),
        view=tensor("0", FLOATS, offset=4, shape=(4, 2), strides=(1, 12)),
        note="not a tensor",
    )
    state = read_state_dict(write(tmp_path / "w.pth", content, {"0": FLOATS, "1": LONG}))
    assert list(state) == ["weight", "steps", "view"]
    np.testing.assert_array_equal(state["weight"], FLOATS)
    assert (state["steps"].shape, int(state["steps"])) == ((), 7)
    np.testing.assert_array_equal(state["view"], FLOATS[:, 1, :].T)
    state["weight"][:] = 0
    assert state["view"][0, 0] == 4, "tensors have their own memory"


def test_a_state_dict_inside_a_checkpoint_is_found(tmp_path):
    content = {"epoch": 3, "state_dict": OrderedDict(w=tensor("0", FLOATS))}
    assert list(read_state_dict(write_zip(tmp_path / "w.pth", content, {"0": FLOATS}))) == ["w"]


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("builtins", "eval"), ("numpy", "load"), ("torch", "load")]
)
def test_a_pickle_that_asks_for_anything_else_is_refused(tmp_path, write, module, name):
    flag = tmp_path / "flag"
    content = {"w": Rebuilt(Global(module, name), (f"touch {flag}",))}
    with pytest.raises(FetchError, match=rf"{module}\.{name}, which was refused"):
        read_state_dict(write(tmp_path / "w.pth", content, {}))
    assert not flag.exists()


def test_a_pickle_made_by_python_itself_is_not_executed(tmp_path):
    flag = tmp_path / "flag"

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {flag}",)

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"w": Bomb()}))
    with pytest.raises(FetchError, match="system, which was refused"):
        read_state_dict(tmp_path / "w.pth")
    assert not flag.exists()


def test_a_pickle_cannot_change_what_it_is_given(tmp_path):
    """BUILD sets attributes of an object: on the function here, which must not be the module's own."""

    class Vandal(Pickler):
        def save(self, obj, save_persistent_id=True):
            if obj == "vandal":
                self.save(Global("torch._utils", "_rebuild_tensor_v2"))
                self.save((None, {"__defaults__": ("gone",)}))
                self.write(b"b")
            else:
                super().save(obj, save_persistent_id)

    content = OrderedDict(a="vandal", w=tensor("0", FLOATS))
    path = write_zip(tmp_path / "w.pth", content, {"0": FLOATS}, Vandal)
    np.testing.assert_array_equal(read_state_dict(path)["w"], FLOATS)
    assert pth._rebuild_tensor.__defaults__ is None


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_every_truncation_is_an_error(tmp_path, write):
    path = write(tmp_path / "w.pth", OrderedDict(w=tensor("0", FLOATS)), {"0": FLOATS})
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FetchError, match=r"w\.pth"):
            read_state_dict(path)


@pytest.mark.parametrize(
    "bad",
    [
        {"offset": 1},
        {"offset": -1},
        {"shape": (2, 3, 5)},
        {"shape": (10**9, 10**9), "strides": (0, 0)},
        {"strides": (-12, 4, 1)},
        {"shape": (24,)},
        {"kind": "QUInt8Storage"},
        {"kind": "DoubleStorage"},
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, bad):
    path = write_zip(tmp_path / "w.pth", {"w": tensor("0", FLOATS, **bad)}, {"0": FLOATS})
    with pytest.raises(FetchError):
        read_state_dict(path)


def test_a_compressed_bomb_is_refused_before_it_is_unpacked(tmp_path):
    zeros = np.zeros(10_000_000, "<f4")
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("model/data.pkl", "w") as file:
            Pickler(file, protocol=2).dump({"w": tensor("0", zeros)})
        archive.writestr("model/data/0", zeros.tobytes())
    with pytest.raises(FetchError, match="storage '0'"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [[1, 2], 3, "text"])
def test_what_is_no_dictionary_is_refused(tmp_path, content):
    with pytest.raises(FetchError, match="not a dictionary of tensors"):
        read_state_dict(write_zip(tmp_path / "w.pth", content, {}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FetchError, match=r"none\.pth cannot be read: No such file"):
        read_state_dict(tmp_path / "none.pth")
