"""One graph of a SavedModel, as its protos say: its nodes, the functions in its library, who names whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from tlkit.errors import FetchError

# The attributes of a function that no other function is found by, as one is by `api_implements`.
_OWN_ATTRIBUTES = frozenset({"_construction_context", "_disable_call_shape_inference", "_input_shapes"})


class Graph:
    """One graph of a SavedModel. Of the two graphs that a name can mean, a function and the main graph, the
    main graph is `None`: no function can be called that.

    Raises FetchError for names that are empty or there twice: what TensorFlow takes may be the other one.
    """

    def __init__(self, meta_graph: Any, has_objects: bool) -> None:
        library = meta_graph.graph_def.library
        self.meta_graph = meta_graph
        self.has_objects = has_objects
        self.functions = dict(_named(library.function, lambda each: str(each.signature.name)))
        self.nodes: dict[str | None, dict[str, Any]] = {None: _nodes(meta_graph.graph_def.node)}
        self.nodes |= {name: _nodes(each.node_def) for name, each in self.functions.items()}

    def __iter__(self) -> Iterator[tuple[str | None, Any]]:
        """Every node, with the graph or function that it is in."""
        for owner, nodes in self.nodes.items():
            for node in nodes.values():
                yield owner, node

    @cached_property
    def assets(self) -> list[Any]:
        """The files that belong to it. TensorFlow 1 names them in a collection, too, where not otherwise."""
        if self.meta_graph.asset_file_def or self.has_objects:
            return list(self.meta_graph.asset_file_def)
        assets = []
        for each in self.meta_graph.collection_def["saved_model_assets"].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            try:
                each.Unpack(asset)
            except DecodeError as error:
                raise FetchError("its list of assets cannot be read") from error
            assets.append(asset)
        return assets

    def is_found_by_name_alone(self, function: str) -> bool:
        """Whether TensorFlow takes this function only where its name stands; one with `api_implements` takes
        the place of others."""
        return set(self.functions[function].attr) <= _OWN_ATTRIBUTES

    def is_named_by_gradients(self, function: str) -> bool:
        return any(stands_in(function, each) for each in self._gradients)

    def is_named_by_objects(self, function: str) -> bool:
        return stands_in(function, self._objects)

    def functions_that_name(self, function: str) -> list[str]:
        """Those in which the name stands, anywhere at all, without the function itself."""
        return [
            name for name, each in self._contents.items() if name != function and stands_in(function, each)
        ]

    def needed(self, ends: Iterable[str]) -> set[str]:
        """The nodes of the main graph that run for these."""
        return _closure((node_of(end) for end in ends), self._inputs)

    def users(self, name: str) -> set[str]:
        """The nodes of the main graph that make this one run, and itself."""
        return _closure([name], self._users)

    @cached_property
    def _contents(self) -> dict[str, bytes]:
        return {name: each.SerializeToString() for name, each in self.functions.items()}

    @cached_property
    def _objects(self) -> bytes:
        return bytes(self.meta_graph.object_graph_def.SerializeToString())

    @cached_property
    def _gradients(self) -> list[bytes]:
        library = self.meta_graph.graph_def.library
        return [each.SerializeToString() for each in (*library.gradient, *library.registered_gradients)]

    @cached_property
    def _inputs(self) -> dict[str, list[str]]:
        return {name: [node_of(each) for each in node.input] for name, node in self.nodes[None].items()}

    @cached_property
    def _users(self) -> dict[str, list[str]]:
        users: dict[str, list[str]] = {}
        for name, inputs in self._inputs.items():
            for each in inputs:
                users.setdefault(each, []).append(name)
        return users


def node_of(tensor: str) -> str:
    """The node that a tensor, or what waits for a node, comes from."""
    return tensor.removeprefix("^").split(":")[0]


def functions_in(node: Any) -> set[str]:
    """The functions that the attributes of a node have, those that are handed on to others too."""
    names, waiting = set(), list(node.attr.values())
    while waiting:
        value = waiting.pop()
        for function in (value.func, *value.list.func):
            names |= {function.name} - {""}
            waiting += function.attr.values()
    return names


def stands_in(function: str, content: bytes) -> bool:
    """Whether any text in a serialised message is this name, whatever the text is for."""
    field = attr_value_pb2.NameAttrList(name=function).SerializeToString()
    return field[1:] in content  # its length and the name, without the number of the field


def _nodes(nodes: Iterable[Any]) -> dict[str, Any]:
    return dict(_named(nodes, lambda each: str(each.name)))


def _named(items: Iterable[Any], name_of: Any) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for each in items:
        name = name_of(each)
        if not name:
            raise FetchError("a function or an operation in it has no name")
        if name in seen:
            raise FetchError(f"two of its functions or operations have the name {name[:100]!r}")
        seen.add(name)
        yield name, each


def _closure(start: Iterable[str], following: dict[str, list[str]]) -> set[str]:
    waiting, found = list(start), set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += following.get(name, ())
    return found
