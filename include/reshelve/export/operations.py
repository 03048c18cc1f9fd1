"""What a SavedModel is made of: whether it only computes, and whether a stock model server knows it.

TensorFlow here is newer than the one in the model server. `scripts/newer_operations.py` compares what both know of every
operation; the difference stands here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import op_def_registry

from reshelve.errors import DataError
from reshelve.protocol.saved_model_check import check_saved_model, nodes_of

SERVER = "2.20.0"
"""The TensorFlow of the model server in docker-compose.yaml."""

PRODUCER = 2288
"""The newest version of graphs that it reads (`tf.version.GRAPH_DEF_VERSION`)."""

NEWER: Mapping[str, frozenset[str]] = {"DecodeJxl": frozenset(), "TensorListGetItem": frozenset({"Tshape"})}
"""What TensorFlow 2.21.0 added since: an operation, or attributes of one that was there."""


def check_operations(version: Path) -> list[str]:
    """The operations of a SavedModel, sorted.

    Raises DataError where it does more than compute, a stock server lacks what it has, or reads no such graph.
    """
    used: set[str] = set()
    for meta in check_saved_model(version).meta_graphs:
        graph = meta.graph_def
        functions = {function.signature.name for function in graph.library.function}
        nodes = [node for node in nodes_of(meta) if node.op not in functions]
        if newer := {unknown for node in nodes for unknown in _newer(node)}:
            raise DataError(
                f"the SavedModel has operations that stock servers lack: {', '.join(sorted(newer))}",
                f"expected only what TensorFlow {SERVER} knows, as it is in the model server",
            )
        if graph.versions.min_consumer > PRODUCER:
            raise DataError(
                f"the SavedModel's graph asks for a reader of version {graph.versions.min_consumer}",
                f"expected at most {PRODUCER}, which TensorFlow {SERVER} in the model server reads",
            )
        used |= {node.op for node in nodes}
    return sorted(used)


def _newer(node: NodeDef) -> Iterator[str]:
    """What of a node the server does not know. A loader takes an unknown attribute away where it has its default."""
    if op_def_registry.get(node.op) is None:
        yield node.op
    if node.op not in NEWER:
        return
    if not NEWER[node.op]:
        yield node.op
    defaults = {attr.name: attr.default_value for attr in op_def_registry.get(node.op).attr}
    for name in NEWER[node.op] & node.attr.keys():
        if node.attr[name] != defaults[name]:
            yield f"{node.op}.{name}"
