"""What a SavedModel needs beside computing: its variables saved and restored, tables filled from its files.

An excuse holds only where nothing else can make the operation run, or say which file it is about. That is
asked of the bytes of the protos, not of the fields that are known to name functions: where a name stands
anywhere, it may be used.
"""

from __future__ import annotations

from typing import Any

from tlkit.backbones.saved_model_graph import Graph, node_of, stands_in

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_Place = tuple[str | None, str]  # a tensor in a function, or in the main graph


def is_saver(graph: Graph, owner: str | None, node: Any) -> bool:
    """Whether a node that saves or restores does that for TensorFlow's saver alone.

    With objects, the saver is functions that only the main graph calls, which is never run. In the format of
    TensorFlow 1 it is nodes of the main graph: those that save are never run, and those that restore are run
    with the name of the SavedModel's own variables.
    """
    if graph.has_objects:
        return owner is None or not _may_be_called(graph, owner)
    if owner is not None:
        return False
    users = graph.users(node.name)
    if _are_named(graph, users):
        return False
    restores = node_of(graph.meta_graph.saver_def.restore_op_name) in users
    return not restores or (node.op.startswith("Restore") and _is_filename(graph, _input(node, 0)))


def is_of_an_asset(graph: Graph, owner: str | None, node: Any) -> bool:
    """Whether a table is filled from an asset of the SavedModel wherever its file's name may come from."""
    waiting: list[_Place] = [(owner, _input(node, 1))]
    seen: set[_Place] = set()
    found_one = False
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        sources = _sources(graph, *place)
        if sources is None:
            return False
        found_one = found_one or not sources
        waiting += sources
    return found_one


def _may_be_called(graph: Graph, function: str) -> bool:
    return (
        not graph.is_found_by_name_alone(function)
        or graph.is_named_by_objects(function)
        or graph.is_named_by_gradients(function)
        or bool(graph.functions_that_name(function))
    )


def _are_named(graph: Graph, nodes: set[str]) -> bool:
    """Whether anything but the saver names one of these nodes of the main graph: what has a name may run."""
    meta = graph.meta_graph
    # What is under "savers" is read, and never run.
    contents = [each.SerializeToString() for key, each in meta.collection_def.items() if key != "savers"]
    contents += [each.SerializeToString() for each in meta.signature_def.values()]
    return any(name.encode() in content for name in nodes for content in contents)


def _is_filename(graph: Graph, tensor: str) -> bool:
    """Whether TensorFlow 1's loader puts the name of the SavedModel's variables there."""
    wanted = _tensor(graph.meta_graph.saver_def.filename_tensor_name)
    seen: set[str] = set()
    while tensor not in seen:
        seen.add(tensor)
        if _tensor(tensor) == wanted:
            return True
        node = graph.nodes[None].get(node_of(tensor))
        if node is None or node.op != "Identity":
            return False
        tensor = _input(node, 0)
    return False


def _sources(graph: Graph, owner: str | None, tensor: str) -> list[_Place] | None:
    """Where the name of a file comes from: nothing more to ask where it is an asset, None where it is not."""
    node = graph.nodes[owner].get(node_of(tensor))
    if node is not None and node.op == "Identity":
        return [(owner, _input(node, 0))]
    if owner is None:
        return [] if _is_fed_asset(graph, tensor) else None
    arguments = [each.name for each in graph.functions[owner].signature.input_arg]
    if node is not None or tensor not in arguments:
        return None
    return _argument_sources(graph, owner, arguments.index(tensor))


def _is_fed_asset(graph: Graph, tensor: str) -> bool:
    """Whether it is a tensor of the main graph that an asset's name is put into, by the initialiser alone."""
    meta = graph.meta_graph
    if _tensor(tensor) not in {_tensor(each.tensor_info.name) for each in graph.assets}:
        return False
    others = [each.name for signature in meta.signature_def.values() for each in signature.outputs.values()]
    return graph.has_objects or node_of(tensor) not in graph.needed([*others, meta.saver_def.restore_op_name])


def _argument_sources(graph: Graph, function: str, place: int) -> list[_Place] | None:
    if not graph.is_found_by_name_alone(function) or graph.is_named_by_gradients(function):
        return None
    bound = graph.is_named_by_objects(function)
    if bound and not _is_bound_to_an_asset(graph, function, place):
        return None
    # With objects the main graph is never run; without, its calls are among the callers.
    callers: list[str | None] = [*graph.functions_that_name(function)]
    if not graph.has_objects:
        callers.append(None)
    sources: list[_Place] = []
    for caller in callers:
        calls = [each for each in graph.nodes[caller].values() if _names(each, function)]
        if caller is not None and not calls:
            return None  # the name stands where none is called
        for call in calls:
            if call.op != function and (call.op not in _CALLS or call.attr["f"].func.name != function):
                return None
            sources.append((caller, _input(call, place)))
    return sources if sources or bound else None


def _names(node: Any, function: str) -> bool:
    return stands_in(function, node.SerializeToString())


def _is_bound_to_an_asset(graph: Graph, function: str, place: int) -> bool:
    """Whether the objects call this function with the name of an asset there, and nobody chooses another."""
    objects = graph.meta_graph.object_graph_def
    if function not in objects.concrete_functions:
        return False
    bound = list(objects.concrete_functions[function].bound_inputs)
    first_bound = len(graph.functions[function].signature.input_arg) - len(bound)
    number = place - first_bound
    if not (first_bound >= 0 and 0 <= number < len(bound) and 0 <= bound[number] < len(objects.nodes)):
        return False
    node = objects.nodes[bound[number]]
    # A child of it would be set as an attribute, and `_path` is the name of the file; with a registered name
    # it would be an object of that class.
    return node.WhichOneof("kind") == "asset" and not node.children and not node.registered_name


def _input(node: Any, place: int) -> str:
    """A tensor that the node takes; "" where it does not take so many."""
    return str(node.input[place]) if place < len(node.input) else ""


def _tensor(name: str) -> str:
    return name if ":" in name or not name else f"{name}:0"
