"""What a SavedModel would do beside computing, found in its protos before it is loaded.

A graph can read and write files and run Python functions of the process. So every operation in it has to be
one that is known to compute only. What every SavedModel needs beside those is excused: the functions that
save and restore its variables, as long as nothing else calls them, and tables that are filled from the
SavedModel's own asset files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry  # private: `tf.raw_ops` leaves some operations out

from tlkit.backbones.saved_model_operations import is_pure, without_version
from tlkit.errors import FetchError
from tlkit.zoo.saved_model_files import GRAPH_FILE

_SAVER = frozenset({"Save", "SaveSlices", "Restore", "RestoreSlice", "MergeV2Checkpoints"})
_TABLE = "InitializeTableFromTextFile"
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_STREAMS = (b"", b"stderr", b"stdout", b"log(info)", b"log(warning)", b"log(error)")
_MAIN = ""  # the name of the graph that is no function


@dataclass(frozen=True)
class Findings:
    """What is in a SavedModel.

    `operations` are those that are not known to compute only, `unknown_operations` those that TensorFlow, as
    it is loaded now, does not have, both sorted; `has_objects` is false for the format of TensorFlow 1, which
    has graphs without objects; `tag_sets` are those of its graphs.
    """

    operations: tuple[str, ...]
    unknown_operations: tuple[str, ...]
    has_objects: bool
    tag_sets: tuple[tuple[str, ...], ...]


def scan_saved_model(folder: Path) -> Findings:
    """Read the SavedModel in `folder` without loading it. Raises FetchError: how it is damaged."""
    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((folder / GRAPH_FILE).read_bytes())
    except (DecodeError, OSError) as error:
        raise FetchError(" ".join(str(error).split())) from error
    if not proto.meta_graphs:
        raise FetchError("there is no graph in it")
    # With several graphs TensorFlow takes the way of its version 1, which has no objects.
    has_objects = len(proto.meta_graphs) == 1 and proto.meta_graphs[0].HasField("object_graph_def")
    graphs = [_Graph(graph, has_objects) for graph in proto.meta_graphs]
    return Findings(
        operations=tuple(sorted({name for graph in graphs for name in graph.suspicious()})),
        unknown_operations=tuple(sorted({name for graph in graphs for name in graph.unknown()})),
        has_objects=has_objects,
        tag_sets=tuple(tuple(graph.meta_info_def.tags) for graph in proto.meta_graphs),
    )


class _Graph:
    """One graph of a SavedModel with the functions in its library; `""` is the graph itself."""

    def __init__(self, meta_graph: Any, has_objects: bool) -> None:
        self.meta_graph = meta_graph
        self.has_objects = has_objects
        self.functions = {each.signature.name: each for each in meta_graph.graph_def.library.function}
        self.nodes = {name: list(each.node_def) for name, each in self.functions.items()}
        self.nodes[_MAIN] = list(meta_graph.graph_def.node)
        self.by_name = {graph: {node.name: node for node in nodes} for graph, nodes in self.nodes.items()}

    def suspicious(self) -> Iterator[str]:
        for definition in self.meta_graph.asset_file_def:
            parts = Path(definition.filename).parts
            if ".." in parts or definition.filename.startswith(("/", "~")) or "://" in definition.filename:
                yield f"an asset outside its folder ({definition.filename!r})"
        for graph, nodes in self.nodes.items():
            for node in nodes:
                if not is_pure(node.op) and not self._calls_a_function(node):
                    yield from self._reason(graph, node)

    def unknown(self) -> Iterator[str]:
        for nodes in self.nodes.values():
            for node in nodes:
                if node.op not in self.functions and op_def_registry.get(node.op) is None:
                    yield node.op

    def _calls_a_function(self, node: Any) -> bool:
        """Whether it is of the old kind of calls, which have the name of a function, and of no operation."""
        return node.op in self.functions and op_def_registry.get(node.op) is None

    def _reason(self, graph: str, node: Any) -> Iterator[str]:
        """What speaks against an operation that does more than to compute, if anything does here."""
        kind = without_version(node.op)
        if kind in _SAVER:
            if self._runs(graph, node):
                yield node.op
        elif kind == _TABLE:
            if not self._is_asset(graph, node.input[1], frozenset()):
                yield f"{node.op} of a file that is no asset"
        elif kind in ("DecodeProto", "EncodeProto"):
            if not self._has_own_descriptors(node):
                yield f"{node.op} with descriptors of a file"
        elif kind == "Print":
            if node.attr["output_stream"].s not in _STREAMS:
                yield f"{node.op} to a file"
        else:
            yield node.op

    def _has_own_descriptors(self, node: Any) -> bool:
        return node.attr["descriptor_source"].s.startswith((b"bytes://", b"local://")) or not (
            node.attr["descriptor_source"].s
        )

    # -- what saves and restores variables

    def _runs(self, graph: str, node: Any) -> bool:
        """Whether something else than the saver would run this node, of those that a saver has."""
        if graph == _MAIN:
            return not self.has_objects and (
                node.name in self._computed
                or (node.name in self._restored and not node.op.startswith("Restore"))
            )
        return graph in self._called

    @cached_property
    def _called(self) -> set[str]:
        """The functions that run when the SavedModel is loaded or used. The loader for objects never runs the
        main graph, where the functions that save and restore are called."""
        waiting = list(self.meta_graph.object_graph_def.concrete_functions)
        library = self.meta_graph.graph_def.library  # TensorFlow calls these where it takes a gradient
        waiting += [each.gradient_func for each in (*library.gradient, *library.registered_gradients)]
        if not self.has_objects:
            used = self._computed | self._restored
            waiting += [name for node in self.nodes[_MAIN] if node.name in used for name in _references(node)]
        called: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in called:
                called.add(name)
                waiting += [inner for node in self.nodes.get(name, ()) for inner in _references(node)]
        return called

    @cached_property
    def _computed(self) -> set[str]:
        """The nodes of the main graph that its signatures and its initialiser need."""
        ends = [
            tensor.name for each in self.meta_graph.signature_def.values() for tensor in each.outputs.values()
        ]
        for name in ("legacy_init_op", "saved_model_main_op"):
            ends += list(self.meta_graph.collection_def[name].node_list.value)
        return self._needed(ends)

    @cached_property
    def _restored(self) -> set[str]:
        return self._needed([self.meta_graph.saver_def.restore_op_name])

    def _needed(self, ends: Iterable[str]) -> set[str]:
        waiting = [_node_name(end) for end in ends]
        needed: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in self.by_name[_MAIN] and name not in needed:
                needed.add(name)
                waiting += [_node_name(each) for each in self.by_name[_MAIN][name].input]
        return needed

    # -- where the file of a table comes from

    def _is_asset(self, graph: str, tensor: str, seen: frozenset[tuple[str, str]]) -> bool:
        """Whether a file's name is that of an asset wherever it may come from."""
        if (graph, tensor) in seen:
            return True
        seen |= {(graph, tensor)}
        name = _node_name(tensor)
        node = self.by_name[graph].get(name)
        if node is not None and node.op == "Identity":
            return self._is_asset(graph, node.input[0], seen)
        if node is not None:
            assets = {_node_name(each.tensor_info.name) for each in self.meta_graph.asset_file_def}
            return graph == _MAIN and name in assets
        arguments = [each.name for each in self.functions[graph].signature.input_arg] if graph else []
        return name in arguments and self._argument_is_asset(graph, arguments.index(name), seen)

    def _argument_is_asset(self, function: str, place: int, seen: frozenset[tuple[str, str]]) -> bool:
        objects = self.meta_graph.object_graph_def
        if function in objects.concrete_functions:
            bound = list(objects.concrete_functions[function].bound_inputs)
            first_bound = len(self.functions[function].signature.input_arg) - len(bound)
            if place < first_bound:
                return False  # whoever calls it says which file
            if objects.nodes[bound[place - first_bound]].WhichOneof("kind") != "asset":
                return False
        for graph, nodes in self.nodes.items():
            if graph == _MAIN and self.has_objects:
                continue  # never runs
            for node in nodes:
                if function not in _references(node):
                    continue
                direct = node.op in _CALLS or node.op == function
                if not direct or not self._is_asset(graph, node.input[place], seen):
                    return False
        return True


def _references(node: Any) -> list[str]:
    """The functions that a node may call, or hand on to one that it calls."""
    names, waiting = [node.op], list(node.attr.values())
    while waiting:
        value = waiting.pop()
        for function in (value.func, *value.list.func):
            names += [function.name] if function.name else []
            waiting += function.attr.values()
    return names


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").split(":")[0]
