"""What a SavedModel would do beside computing, found in its protos before it is loaded.

A graph can read and write files and run Python functions of the process. So every operation in it has to be
one that is known to compute only; `saved_model_excuses` tells what every SavedModel needs beside those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry  # private: `tf.raw_ops` leaves some operations out

from tlkit.backbones.saved_model_excuses import is_of_an_asset, is_saver
from tlkit.backbones.saved_model_graph import Graph, functions_in
from tlkit.backbones.saved_model_operations import is_pure, without_version
from tlkit.errors import FetchError
from tlkit.zoo.saved_model_files import GRAPH_FILE

_SAVER = frozenset({"Save", "SaveSlices", "Restore", "RestoreSlice", "MergeV2Checkpoints"})
_TABLE = "InitializeTableFromTextFile"
_STREAMS = (b"", b"stderr", b"stdout", b"log(info)", b"log(warning)", b"log(error)")


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
    graphs = [Graph(graph, has_objects) for graph in proto.meta_graphs]
    return Findings(
        operations=_shown(name for graph in graphs for name in _suspicious(graph)),
        unknown_operations=_shown(name for graph in graphs for name in _unknown(graph)),
        has_objects=has_objects,
        tag_sets=tuple(tuple(graph.meta_info_def.tags) for graph in proto.meta_graphs),
    )


def _suspicious(graph: Graph) -> Iterator[str]:
    for definition in graph.assets:
        parts = Path(definition.filename).parts
        if ".." in parts or definition.filename.startswith(("/", "~")) or "://" in definition.filename:
            yield f"an asset outside its folder ({definition.filename!r})"
    for name in graph.functions:
        if op_def_registry.get(name) is not None:  # TensorFlow would call it wherever the operation stands
            yield f"a function of the name {name}"
    for owner, node in graph:
        if not graph.functions.keys() >= functions_in(node):  # it could be any that this process has
            yield f"{node.op} of a function that is not in it"
        if not is_pure(node.op) and not _calls_a_function(graph, node):
            yield from _reason(graph, owner, node)


def _unknown(graph: Graph) -> Iterator[str]:
    for _, node in graph:
        if node.op not in graph.functions and op_def_registry.get(node.op) is None:
            yield node.op


def _calls_a_function(graph: Graph, node: Any) -> bool:
    """Whether it is of the old kind of calls, which have the name of a function, and of no operation."""
    return node.op in graph.functions and op_def_registry.get(node.op) is None


def _reason(graph: Graph, owner: str | None, node: Any) -> Iterator[str]:
    """What speaks against an operation that does more than to compute, if anything does here."""
    kind = without_version(node.op)
    if kind in _SAVER:
        if not is_saver(graph, owner, node):
            yield node.op
    elif kind == _TABLE:
        if not is_of_an_asset(graph, owner, node):
            yield f"{node.op} of a file that is no asset"
    elif kind in ("DecodeProto", "EncodeProto"):
        if not _has_own_descriptors(node):
            yield f"{node.op} with descriptors of a file"
    elif kind == "Print":
        if node.attr["output_stream"].s not in _STREAMS:
            yield f"{node.op} to a file"
    else:
        yield node.op


def _has_own_descriptors(node: Any) -> bool:
    return node.attr["descriptor_source"].s.startswith((b"bytes://", b"local://")) or not (
        node.attr["descriptor_source"].s
    )


def _shown(names: Iterable[str]) -> tuple[str, ...]:
    """Each once, sorted, as they can stand in a line."""
    return tuple(
        sorted(
            {
                "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)[:100]
                for name in names
            }
        )
    )
