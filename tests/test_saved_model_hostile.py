"""SavedModels whose protos somebody edited: what they would run is found, and what is broken is one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tlkit.backbones.saved_model_open import open_saved_model
from tlkit.errors import FetchError

from saved_models import TextModule, save_tf1, write_vocabulary

Edit = Callable[[Any], None]


class Plain(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones([3, 4]))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
    def __call__(self, pictures: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(pictures, [1, 2]) @ self.kernel


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved_models")
    tf.saved_model.save(Plain(), str(folder / "plain"))
    save_tf1(folder / "tf1")
    tf.saved_model.save(TextModule(write_vocabulary(folder / "words.txt", ["a", "b"])), str(folder / "table"))
    return {name: folder / name for name in ("plain", "tf1", "table")}


def edited(path: Path, to: Path, edit: Edit) -> Path:
    shutil.copytree(path, to)
    proto = saved_model_pb2.SavedModel.FromString((to / "saved_model.pb").read_bytes())
    edit(proto.meta_graphs[0])
    (to / "saved_model.pb").write_bytes(proto.SerializeToString())
    return to


def check_refused(path: Path, says: str) -> None:
    with pytest.raises(FetchError, match=says) as caught:
        open_saved_model(path)
    assert str(caught.value).isprintable(), "it is one line, and nothing in it steers a terminal"


def function_of(graph: Any, part: str) -> Any:
    return next(each for each in graph.graph_def.library.function if part in each.signature.name)


def add_node(owner: Any, operation: str, name: str, inputs: tuple[str, ...] = ()) -> Any:
    node = (owner.node_def if hasattr(owner, "node_def") else owner.node).add(op=operation, name=name)
    node.input.extend(inputs)
    return node


# -- functions that are not what they seem


def test_a_function_without_a_name_is_refused(folders, tmp_path):
    def edit(graph: Any) -> None:
        function_of(graph, "__call__").signature.name = ""

    check_refused(edited(folders["plain"], tmp_path / "m", edit), "has no name")


def test_two_functions_of_one_name_are_refused(folders, tmp_path):
    def edit(graph: Any) -> None:
        graph.graph_def.library.function.add().CopyFrom(function_of(graph, "__call__"))

    check_refused(edited(folders["plain"], tmp_path / "m", edit), "two of its functions .* have the name")


def _implements(graph: Any) -> None:
    """TensorFlow may put any of those that implement the same in the place of one that is called."""
    for part in ("__call__", "traced_save"):
        function_of(graph, part).attr["api_implements"].s = b"an_interface"


def _object(graph: Any) -> None:
    """An object of the SavedModel is the function, which the list of concrete functions leaves out."""
    called = next(each for each in graph.object_graph_def.nodes if each.WhichOneof("kind") == "function")
    called.function.concrete_functions[0] = function_of(graph, "traced_save").signature.name


def _gradient(graph: Any) -> None:
    graph.graph_def.library.registered_gradients.add(
        gradient_func=function_of(graph, "traced_save").signature.name, registered_op_type="CustomGradient-1"
    )


def _called(graph: Any) -> None:
    node = add_node(function_of(graph, "__call__"), "StatefulPartitionedCall", "call")
    node.attr["f"].func.name = function_of(graph, "traced_save").signature.name


def _text(graph: Any) -> None:
    """Its name in an attribute that is no function to TensorFlow's protos."""
    node = add_node(function_of(graph, "__call__"), "NoOp", "nothing")
    node.attr["anything"].list.s.append(function_of(graph, "traced_save").signature.name.encode())


@pytest.mark.parametrize("edit", [_implements, _object, _gradient, _called, _text])
def test_a_saver_that_something_else_could_call_is_refused(edit, folders, tmp_path):
    check_refused(
        edited(folders["plain"], tmp_path / "m", edit),
        "was refused: it holds (MergeV2Checkpoints, )?SaveV2, ",
    )


def test_a_function_with_the_name_of_an_operation_is_refused(folders, tmp_path):
    """TensorFlow takes every node of this operation for a call of the function."""

    def edit(graph: Any) -> None:
        graph.graph_def.library.function.add().signature.name = "Identity"

    check_refused(edited(folders["plain"], tmp_path / "m", edit), "holds a function of the name Identity,")


def test_functions_are_those_of_the_saved_model(folders, tmp_path):
    """A name that the file does not have could be that of any function that was loaded before."""

    def edit(graph: Any) -> None:
        called = function_of(graph, "__call__")
        node = add_node(called, "NoOp", "nothing")
        node.attr["f"].func.name = called.signature.name
        node.attr["f"].func.attr["g"].func.name = "__inference__traced_save_123456"

    check_refused(edited(folders["plain"], tmp_path / "m", edit), "NoOp of a function that is not in it,")


def _more_is_bound_than_taken(graph: Any) -> None:
    """TensorFlow binds the first ones then, and not the last."""
    function = function_of(graph, "initializer")
    bound = graph.object_graph_def.concrete_functions[function.signature.name].bound_inputs
    bound[:] = [0, *bound]


def _table_is_never_called(graph: Any) -> None:
    uncalled = graph.graph_def.library.function.add()
    uncalled.signature.name = "uncalled"
    uncalled.signature.input_arg.add(name="file", type=tf.string.as_datatype_enum)
    add_node(uncalled, "InitializeTableFromTextFileV2", "fill", ("table", "file"))


def _asset_has_another_path(graph: Any) -> None:
    """A child is set as an attribute: where the asset's path is, would be whatever the child is."""
    objects = graph.object_graph_def.nodes
    asset = next(each for each in objects if each.WhichOneof("kind") == "asset")
    asset.children.add(local_name="_path", node_id=0)


def _asset_is_a_constant(graph: Any) -> None:
    objects = graph.object_graph_def.nodes
    asset = next(each for each in objects if each.WhichOneof("kind") == "asset")
    asset.registered_name = "tf.TrackableConstant"


@pytest.mark.parametrize(
    "edit", [_asset_is_a_constant, _more_is_bound_than_taken, _table_is_never_called, _asset_has_another_path]
)
def test_a_table_of_a_file_that_may_be_any_is_refused(edit, folders, tmp_path):
    path = edited(folders["table"], tmp_path / "m", edit)
    check_refused(path, "InitializeTableFromTextFileV2 of a file that is no asset")


def test_memory_that_nobody_has_written_is_refused(folders, tmp_path):
    def edit(graph: Any) -> None:
        add_node(function_of(graph, "__call__"), "FakeParam", "memory")

    check_refused(edited(folders["plain"], tmp_path / "m", edit), "it holds FakeParam,")


# -- the format of TensorFlow 1, whose main graph runs


def _initialises(graph: Any) -> None:
    """These run at loading where no other initialiser is named."""
    graph.collection_def["table_initializer"].node_list.value.append("save/SaveV2")


def _initialises_later(graph: Any) -> None:
    add_node(graph.graph_def, "NoOp", "harmless", ("^save/SaveV2",))
    graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "harmless"


def test_what_saves_is_not_run_by_tensorflow_1s_initialisers(folders, tmp_path):
    for number, edit in enumerate((_initialises, _initialises_later)):
        path = edited(folders["tf1"], tmp_path / str(number), edit)
        check_refused(path, "it holds .*SaveV2, ")


def test_what_tensorflow_1_restores_are_its_own_variables(folders, tmp_path):
    def edit(graph: Any) -> None:
        restore = next(each for each in graph.graph_def.node if each.op == "RestoreV2")
        other = add_node(graph.graph_def, "Const", "other")
        other.attr["dtype"].type = tf.string.as_datatype_enum
        other.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/elsewhere/variables"))
        restore.input[0] = "other"

    check_refused(edited(folders["tf1"], tmp_path / "m", edit), "it holds RestoreV2,")


def test_tables_of_tensorflow_1_are_filled_from_its_assets(tmp_path):
    vocabulary = write_vocabulary(tmp_path / "words.txt", ["a", "b"])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        words = tf.compat.v1.placeholder(tf.string, (None,), name="words")
        weight = tf.compat.v1.get_variable("w", (), initializer=tf.compat.v1.ones_initializer())
        file = tf.constant(str(vocabulary))
        tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.ASSET_FILEPATHS, file)
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(file, tf.string, 0, tf.int64, -1), default_value=-1
        )
        found = tf.cast(table.lookup(words), tf.float32) * weight
        session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
        tf.compat.v1.saved_model.simple_save(
            session,
            str(tmp_path / "m"),
            {"words": words},
            {"found": found},
            legacy_init_op=tf.compat.v1.tables_initializer(),
        )
    vocabulary.unlink()
    endpoint = open_saved_model(tmp_path / "m").endpoint
    assert endpoint({"words": tf.constant(["b", "c"])}, training=False)["found"].numpy().tolist() == [1, -1]


# -- what is broken


def _no_inputs(graph: Any) -> None:
    add_node(function_of(graph, "__call__"), "InitializeTableFromTextFileV2", "fill")


def _identity_loop(graph: Any) -> None:
    function = function_of(graph, "__call__")
    add_node(function, "Identity", "a")
    add_node(function, "InitializeTableFromTextFileV2", "fill", ("table", "a"))


def _identity_chain(graph: Any) -> None:
    function = function_of(graph, "__call__")
    add_node(function, "Identity", "a0", (function.signature.input_arg[0].name,))
    for number in range(1, 5000):
        add_node(function, "Identity", f"a{number}", (f"a{number - 1}:output:0",))
    add_node(function, "InitializeTableFromTextFileV2", "fill", ("table", "a4999:output:0"))


def _bound_to_nothing(graph: Any) -> None:
    function = function_of(graph, "__call__")
    bound = graph.object_graph_def.concrete_functions[function.signature.name].bound_inputs
    bound[:] = [999]
    argument = function.signature.input_arg[1].name
    add_node(function, "InitializeTableFromTextFileV2", "fill", ("table", argument))


def _no_signature(graph: Any) -> None:
    for each in graph.object_graph_def.concrete_functions.values():
        each.Clear()


def _own_child(graph: Any) -> None:
    graph.object_graph_def.nodes[0].children[0].node_id = 0


def _steering(graph: Any) -> None:
    add_node(function_of(graph, "__call__"), "Evil\x1b[31mOp<script>\n", "t")


BROKEN: dict[str, Edit] = {
    each.__name__: each
    for each in (
        _no_inputs,
        _identity_loop,
        _identity_chain,
        _bound_to_nothing,
        _no_signature,
        _own_child,
        _steering,
    )
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_one_line(name, folders, tmp_path):
    check_refused(edited(folders["plain"], tmp_path / "m", BROKEN[name]), "was refused|cannot be loaded")
