"""Files of Keras's that somebody made to do harm."""

import io
import json
import pickle
import warnings
import zipfile

import h5py
import keras
import numpy as np

from tlkit.backbones.checked_keras import check_preset_file, load_checked_model, load_checked_weights

from hostile import registering

MAKERS = {}
hostile = registering(MAKERS)


# -- .keras files


def sequential(*layers):
    """The config of a model with these layers, as Keras writes it."""
    first = built_in("InputLayer", {"batch_shape": [None, 4], "dtype": "float32", "name": "input"})
    return built_in("Sequential", {"name": "model", "layers": [first, *layers]}, "keras")


def built_in(name, config, module="keras.layers", **more):
    return {"module": module, "class_name": name, "config": config, "registered_name": None, **more}


def function(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def code_layer(trap):
    """A Lambda layer that Keras itself has written down."""
    path = str(trap.path)
    layer = keras.layers.Lambda(lambda x: [__import__("os").mkdir(path), x][1])
    return keras.saving.serialize_keras_object(layer)


def no_weights():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")
    return buffer.getvalue()


def keras_file(folder, config, weights=None, more=()):
    path = folder / "m.keras"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile says that a name is there twice
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", '{"keras_version": "3.15.0", "date_saved": "2026-01-01"}')
        archive.writestr("model.weights.h5", no_weights() if weights is None else weights)
        for name, content in more:
            archive.writestr(name, content)
    return path


def opening(folder, config, **files):
    path = keras_file(folder, config, **files)
    return lambda: load_checked_model(path)


@hostile("code in a Lambda layer")
def _(folder, trap):
    return opening(folder, sequential(code_layer(trap))), "holds a Lambda layer, which holds Python code"


@hostile("code in a model in a model")
def _(folder, trap):
    return opening(folder, sequential(sequential(sequential(code_layer(trap))))), "a Lambda layer"


@hostile("code in a functional model")
def _(folder, trap):
    inputs = keras.Input((4,))
    outputs = keras.layers.Lambda(lambda x: x + 1)(inputs)
    path = folder / "m.keras"
    keras.Model(inputs, outputs).save(path)
    return lambda: load_checked_model(path), "a Lambda layer"


@hostile("code in a TimeDistributed layer")
def _(folder, trap):
    wrapped = built_in("TimeDistributed", {"name": "wrapped", "layer": code_layer(trap)})
    return opening(folder, sequential(wrapped)), "a Lambda layer"


@hostile("code in a Bidirectional layer's backward layer")
def _(folder, trap):
    config = {"layer": built_in("LSTM", {"units": 2}), "backward_layer": code_layer(trap)}
    return opening(folder, sequential(built_in("Bidirectional", config))), "a Lambda layer"


@hostile("code as an activation")
def _(folder, trap):
    code = code_layer(trap)["config"]["function"]
    return opening(
        folder, sequential(built_in("Dense", {"units": 1, "activation": code}))
    ), "function as code"


@hostile("code in the compilation of a model in a model")
def _(folder, trap):
    inner = {**sequential(), "compile_config": {"optimizer": "sgd", "loss": code_layer(trap)}}
    return opening(folder, sequential(inner)), "a Lambda layer"


@hostile("get_file as an activation")
def _(folder, trap):
    layer = built_in("Activation", {"activation": function("keras.utils", "get_file")})
    return opening(folder, sequential(layer)), "the function keras.utils.get_file"


@hostile("get_file in a Lambda layer")
def _(folder, trap):
    layer = built_in(
        "Lambda", {"function": function("keras.utils", "get_file"), "arguments": {"origin": "x"}}
    )
    return opening(folder, sequential(layer)), "a Lambda layer"


@hostile("get_file nested in a wrapper")
def _(folder, trap):
    layer = built_in("Activation", {"activation": function("keras.src.utils.file_utils", "get_file")})
    wrapped = built_in("TimeDistributed", {"layer": layer})
    return opening(
        folder, sequential(sequential(wrapped))
    ), "the function keras.src.utils.file_utils.get_file"


@hostile("safe mode switched off from inside")
def _(folder, trap):
    layer = built_in("Activation", {"activation": function("keras.config", "enable_unsafe_deserialization")})
    return opening(
        folder, sequential(layer, code_layer(trap))
    ), "enable_unsafe_deserialization|a Lambda layer"


@hostile("a class of the standard library")
def _(folder, trap):
    layer = built_in("Popen", {"args": ["mkdir", str(trap.path)]}, module="subprocess")
    return opening(folder, sequential(layer)), "subprocess.Popen, which is no layer"


@hostile("a function of the standard library by a registered name")
def _(folder, trap):
    layer = {"module": None, "class_name": "system", "config": {}, "registered_name": "os>system"}
    return opening(folder, sequential(layer)), "os>system, which is no layer"


@hostile("a class of Keras that is no part of a model")
def _(folder, trap):
    layer = built_in("KerasFileEditor", {"filepath_": "/etc/passwd"}, module="keras.saving")
    return opening(folder, sequential(layer)), "keras.saving.KerasFileEditor, which is no layer"


@hostile("a module that would be imported")
def _(folder, trap):
    layer = built_in("Layer", {}, module="keras.src.legacy.not_loaded")
    return opening(folder, sequential(layer)), "which is no layer"


@hostile("a TFSMLayer")
def _(folder, trap):
    layer = built_in("TFSMLayer", {"filepath": "/tmp/model", "call_endpoint": "serve"})
    return opening(folder, sequential(layer)), "a TFSMLayer, which loads a SavedModel"


@hostile("a pickled PyTorch module")
def _(folder, trap):
    layer = built_in("TorchModuleWrapper", {"module": pickle.dumps(trap).hex()})
    return opening(folder, sequential(layer)), "a TorchModuleWrapper, which holds a pickle"


@hostile("a vocabulary that is any file")
def _(folder, trap):
    layer = built_in("StringLookup", {"vocabulary": "/etc/passwd"})
    return opening(folder, sequential(layer)), "would read the file '/etc/passwd'"


@hostile("a vocabulary that is any file, in a wrapper")
def _(folder, trap):
    layer = built_in("TextVectorization", {"vocabulary": "/etc/passwd", "output_mode": "int"})
    wrapped = built_in("TimeDistributed", {"layer": layer})
    return opening(folder, sequential(wrapped)), "would read the file '/etc/passwd'"


@hostile("a config that is deeper than Python goes")
def _(folder, trap):
    path = keras_file(folder, {})
    deep = '{"class_name": ' + "[" * 200_000 + "]" * 200_000 + "}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", deep)
        archive.writestr("model.weights.h5", no_weights())
    return lambda: load_checked_model(path), "cannot be read as JSON"


@hostile("a .keras file whose weights are pickled")
def _(folder, trap):
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.array([trap], object))
    more = [("model.weights.npz", buffer.getvalue())]
    return opening(folder, sequential(), more=more), "keeps its weights in 'model.weights.npz'"


@hostile("a .keras file that would write elsewhere")
def _(folder, trap):
    return opening(folder, sequential(), more=[("../../assets/x", "x")]), "would leave its folder"


@hostile("a .keras file with two configs")
def _(folder, trap):
    more = [("config.json", json.dumps(sequential(code_layer(trap))))]
    return opening(folder, sequential(), more=more), "holds 'config.json' twice"


@hostile("a .keras file that unpacks to more than the disk has")
def _(folder, trap):
    path = keras_file(folder, sequential())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(2_000_000))
    return lambda: load_checked_model(path), "more than the 1,[0-9]{3},[0-9]{3} bytes that"


# -- .h5 files


def h5_model(folder, config):
    """A whole model in the older format."""
    path = folder / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights")
    return lambda: load_checked_model(path)


def old(name, config):
    return {"class_name": name, "config": config}


def old_lambda(trap):
    code = code_layer(trap)["config"]["function"]["config"]["code"]
    return old("Lambda", {"name": "l", "function": [code, None, None], "function_type": "lambda"})


@hostile("code in an .h5")
def _(folder, trap):
    return h5_model(folder, old("Sequential", {"layers": [old_lambda(trap)]})), "a Lambda layer"


@hostile("code in a wrapper in an .h5")
def _(folder, trap):
    wrapped = old("TimeDistributed", {"layer": old("Sequential", {"layers": [old_lambda(trap)]})})
    return h5_model(folder, old("Sequential", {"layers": [wrapped]})), "a Lambda layer"


@hostile("get_file in an .h5")
def _(folder, trap):
    layer = old("Activation", {"activation": function("keras.utils", "get_file")})
    return h5_model(folder, old("Sequential", {"layers": [layer]})), "the function keras.utils.get_file"


@hostile("a class of the standard library in an .h5")
def _(folder, trap):
    layer = {"class_name": "Popen", "module": "subprocess", "config": {"args": ["mkdir", str(trap.path)]}}
    return h5_model(folder, old("Sequential", {"layers": [layer]})), "subprocess.Popen, which is no layer"


def weights_file(folder, fill):
    path = folder / "w.weights.h5"
    with h5py.File(path, "w") as file:
        fill(file)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    return lambda: load_checked_weights(model, path)


@hostile("weights behind a link to another file")
def _(folder, trap):
    def fill(file):
        file["layers"] = h5py.ExternalLink("/etc/secret.h5", "/weights")

    return weights_file(folder, fill), "'/layers' is a link to the file '/etc/secret.h5'"


@hostile("weights behind a link inside of the file")
def _(folder, trap):
    def fill(file):
        file["layers/dense/vars/0"] = h5py.SoftLink("/elsewhere")

    return weights_file(folder, fill), "'/layers/dense/vars/0' is a link to '/elsewhere'"


@hostile("weights whose numbers are any file")
def _(folder, trap):
    def fill(file):
        file.create_dataset("layers/0", (4, 2), "uint8", external=[("/etc/passwd", 0, 8)])

    return weights_file(folder, fill), "keeps its numbers in the file '/etc/passwd'"


@hostile("weights put together from other files")
def _(folder, trap):
    def fill(file):
        layout = h5py.VirtualLayout((8,), "uint8")
        layout[:] = h5py.VirtualSource("/etc/secret.h5", "weights", (8,))
        file.create_virtual_dataset("layers", layout)

    return weights_file(folder, fill), "put together from other files"


@hostile("weights that are larger than they are stored")
def _(folder, trap):
    def fill(file):
        file.create_dataset("layers", (10**6, 10**6), "float32", chunks=(1000, 1000), compression="gzip")

    return weights_file(folder, fill), "declares 4,000,000,000,000 bytes and stores 0"


@hostile("a link to another file in a .keras file's weights")
def _(folder, trap):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/secret.h5", "/weights")
    return opening(folder, sequential(), weights=buffer.getvalue()), "is a link to the file '/etc/secret.h5'"


# -- KerasHub's presets


@hostile("code in a preset of KerasHub")
def _(folder, trap):
    path = folder / "config.json"
    config = {"image_encoder": code_layer(trap)}
    path.write_text(json.dumps(built_in("BertBackbone", config, "keras_hub.src.models.bert.bert_backbone")))
    return lambda: check_preset_file(path), "a Lambda layer"


@hostile("a tokenizer of KerasHub that reads any file")
def _(folder, trap):
    path = folder / "tokenizer.json"
    module = "keras_hub.src.models.bert.bert_tokenizer"
    path.write_text(json.dumps(built_in("BertTokenizer", {"vocabulary": "/etc/passwd"}, module)))
    return lambda: check_preset_file(path), "would read the file '/etc/passwd'"


@hostile("a list of weights that leads out of a preset")
def _(folder, trap):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"embeddings": "../../secret.safetensors"}}))
    return lambda: check_preset_file(path), "names a file outside its folder: '../../secret.safetensors'"


@hostile("a list of weights in parts that leads out of a preset")
def _(folder, trap):
    path = folder / "model.weights.json"
    path.write_text(json.dumps({"weight_map": {"/layers": ["model_00000.weights.h5", "/etc/secret.h5"]}}))
    return lambda: check_preset_file(path), "names a file outside its folder: '/etc/secret.h5'"
