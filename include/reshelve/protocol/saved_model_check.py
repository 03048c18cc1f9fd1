"""Whether a SavedModel only computes: its operations by the list, its files by name, and where files may be read at all.

Without TensorFlow's runtime: an agent asks this of every version that it copies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from reshelve.errors import DataError
from reshelve.protocol.allowed_operations import OPERATIONS, RESTORE, SAVE, TABLE_FROM_FILE
from reshelve.protocol.messages import bare_tensorflow
from reshelve.settings import settings

with bare_tensorflow():
    from tensorflow.core.framework import function_pb2, node_def_pb2, types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

GRAPH = "saved_model.pb"
_PLACES = frozenset({GRAPH, "fingerprint.pb", "variables", "assets", "assets.extra"})
_EXTRA_READ_BY_SERVERS = frozenset(
    {"saved_model_config.pb"}
)  # beside the warm-up: it would change how a graph is run
_NAME_OF_FUNCTION = re.compile(r"_*[a-z].*|.*_[0-9]+", re.DOTALL)  # no operation of TensorFlow is called so
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_START = "__saved_model_init_op"
_COLLECTION = "saved_model_main_op"
_NO_VALUES = frozenset({types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT})
_MOST_NAMED = 5

Node = node_def_pb2.NodeDef
Function = function_pb2.FunctionDef


def check_saved_model(version: Path) -> saved_model_pb2.SavedModel:
    """The SavedModel in a directory, whose graphs only compute. Raises DataError that says what else they would do."""
    _check_files(version)
    try:
        saved = saved_model_pb2.SavedModel.FromString((version / GRAPH).read_bytes())
    except DecodeError as error:
        raise DataError(f"{GRAPH} is no SavedModel", f"{error} (in {version})") from error
    if not saved.meta_graphs:
        raise DataError(f"{GRAPH} has no graph", f"expected one tagged `serve` (in {version})")
    allowed = OPERATIONS | allowed_here()
    assets = {path.name for path in (version / "assets").glob("*") if path.is_file()}
    for meta in saved.meta_graphs:
        problems = list(dict.fromkeys(_GraphCheck(meta, assets).problems(allowed)))
        if problems:
            more = f" and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
            raise DataError(
                f"the graph would do more than compute: {'; '.join(problems[:_MOST_NAMED])}{more}",
                "expected the operations of reshelve/protocol/allowed_operations.py alone; see docs/reference/security.md",
            )
    return saved


def allowed_here() -> frozenset[str]:
    """Operations that this installation allows beyond the list."""
    return frozenset(name.strip() for name in settings().graph_operations.split(",") if name.strip())


def nodes_of(meta: meta_graph_pb2.MetaGraphDef) -> Iterator[Node]:
    """Every node of a graph, those of its functions too."""
    yield from meta.graph_def.node
    for function in meta.graph_def.library.function:
        yield from function.node_def


def _check_files(version: Path) -> None:
    """Only what is known to be read: a loader takes the graph in other forms, and settings, by the name of a file."""
    if not (version / GRAPH).is_file():
        raise DataError(f"{version} has no {GRAPH}")
    odd = {path.name for path in version.iterdir()} - _PLACES
    odd |= {path.name for path in (version / "assets.extra").glob("*")} & _EXTRA_READ_BY_SERVERS
    if odd:
        raise DataError(
            f"the version has files that no version of Reshelve has: {', '.join(sorted(odd))}",
            f"expected {', '.join(sorted(_PLACES))} (in {version})",
        )


@dataclass(frozen=True)
class _Body:
    """The graph itself (without a function), or one function of its library."""

    nodes: Iterable[Node]
    function: Function | None = None

    @property
    def name(self) -> str:
        return self.function.signature.name if self.function else ""

    @property
    def where(self) -> str:
        return f"in function {self.name}" if self.function else "in the graph"


class _GraphCheck:
    """One graph with its library."""

    def __init__(self, meta: meta_graph_pb2.MetaGraphDef, assets: set[str]) -> None:
        self._meta, self._assets = meta, assets
        functions = meta.graph_def.library.function
        self._bodies = [_Body(meta.graph_def.node), *(_Body(f.node_def, f) for f in functions)]
        self._functions = Counter(f.signature.name for f in functions)
        self._nodes = {node.name: node for node in meta.graph_def.node}

    def problems(self, allowed: frozenset[str]) -> Iterator[str]:
        """What speaks against it, each with its place."""
        for name, times in self._functions.items():
            if times > 1 or not _NAME_OF_FUNCTION.fullmatch(name):
                yield f"a function is called {name!r}" + (" twice" if times > 1 else "")
        if odd := sorted(set(self._meta.collection_def) - {_COLLECTION}):
            yield f"it has a collection {', '.join(odd)}"
        saver = self._meta.saver_def
        save, restore = (self._called(name) for name in (saver.save_tensor_name, saver.restore_op_name))
        for body in self._bodies:
            may = allowed
            if body.name and body.name == restore:
                may = may | RESTORE
            elif body.name and body.name == save:
                may = may | SAVE
            for node in body.nodes:
                if node.op in TABLE_FROM_FILE and node.op not in may:
                    yield from self._problems_of_table(body, node)
                elif node.op not in may and node.op not in self._functions:
                    yield f"{node.op} {body.where}"
                elif node.op == "Const" and node.attr["dtype"].type in _NO_VALUES:
                    yield f"a constant that is a handle {body.where}"
        yield from self._problems_of_savers({name for name in (save, restore) if name}, restore)
        yield from self._problems_of_assets()

    def _called(self, tensor: str) -> str | None:
        """The function that the node of a tensor calls."""
        node = self._nodes.get(_node_of(tensor))
        return node.attr["f"].func.name if node is not None and node.op in _CALLS else None

    @cached_property
    def _callers(self) -> dict[str, list[tuple[_Body, Node]]]:
        """Function → the nodes that name it, whatever they do with it."""
        found: dict[str, list[tuple[_Body, Node]]] = {}
        for body in self._bodies:
            for node in body.nodes:
                for name in _functions_named(node) | ({node.op} & self._functions.keys()):
                    found.setdefault(name, []).append((body, node))
        return found

    @cached_property
    def _asked(self) -> set[str]:
        """Nodes of the graph that an answer needs: what a request may run."""
        outputs = [
            tensor
            for name, signature in self._meta.signature_def.items()
            if name != _START
            for tensor in signature.outputs.values()
        ]
        return self._needed(_names_in(outputs))

    @cached_property
    def _started(self) -> set[str]:
        """Nodes of the graph that run when a version is loaded."""
        collections = [each.node_list.value for each in self._meta.collection_def.values()]
        starts = [s.outputs.values() for name, s in self._meta.signature_def.items() if name == _START]
        return self._needed([*chain(*collections), *_names_in(chain(*starts))])

    def _needed(self, tensors: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = [_node_of(tensor) for tensor in tensors]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += (
                    [_node_of(tensor) for tensor in self._nodes[name].input] if name in self._nodes else []
                )
        return found

    def _problems_of_savers(self, savers: set[str], restore: str | None) -> Iterator[str]:
        """They are called by the loader alone, and what is restored are the version's own variables."""
        path = _node_of(self._meta.saver_def.filename_tensor_name)
        for name in sorted(savers):
            callers = self._callers.get(name, [])
            within = [body.where for body, _ in callers if body.function]
            if within or len(callers) != 1:
                yield f"{name}, which saves or restores, is called {within[0] if within else 'more than once'}"
                continue
            (node,) = (node for _, node in callers)
            if node.name in self._asked | self._started:
                yield f"{name}, which saves or restores, is run by a request or at the start"
        for body in self._bodies:
            if body.function is None or body.name not in savers:
                continue
            if body.name == restore:
                yield from self._problems_of_restore(body, path)
            if any(name.startswith("api_") for name in body.function.attr):
                yield f"{body.name}, which saves or restores, stands in for another function"

    def _problems_of_restore(self, body: _Body, path: str) -> Iterator[str]:
        first = (
            next((argument.name for argument in body.function.signature.input_arg), None)
            if body.function
            else None
        )
        prefixes = {node.input[0] for node in body.nodes if node.op in RESTORE}
        ((_, call), *_) = self._callers[body.name]
        given = _node_of(call.input[0]) if call.input else None
        is_ours = given == path and path in self._nodes and self._nodes[path].op == "Placeholder"
        if prefixes and (prefixes != {first} or not is_ours):
            yield f"RestoreV2 {body.where} reads other files than the version's own variables"

    def _problems_of_table(self, body: _Body, node: Node) -> Iterator[str]:
        """A file may fill a table when a version is loaded: only then is an asset's path the true one."""
        tensors, runs = [node.input[1] if len(node.input) > 1 else ""], [node.name]
        if body.function:
            arguments = [argument.name for argument in body.function.signature.input_arg]
            callers = self._callers.get(body.name, [])
            direct = all(at.function is None and call.op in _CALLS for at, call in callers)
            if not direct or tensors[0] not in arguments:
                yield f"{node.op} {body.where} reads a file that is no asset"
                return
            place = arguments.index(tensors[0])
            tensors, runs = [call.input[place] for _, call in callers], [call.name for _, call in callers]
        assets = {_node_of(asset.tensor_info.name) for asset in self._meta.asset_file_def}
        if not {_node_of(tensor) for tensor in tensors} <= assets:
            yield f"{node.op} {body.where} reads a file that is no asset"
        if self._asked & set(runs):
            yield f"{node.op} {body.where} is run by a request"

    def _problems_of_assets(self) -> Iterator[str]:
        for asset in self._meta.asset_file_def:
            if asset.filename not in self._assets:
                yield f"its asset {asset.filename!r} is no file of its assets"


def _functions_named(node: Node) -> set[str]:
    found: set[str] = set()
    for value in node.attr.values():
        which = value.WhichOneof("value")
        if which == "func":
            found |= _functions_in(value.func)
        elif which == "list":
            for function in value.list.func:
                found |= _functions_in(function)
    return found


def _functions_in(function: Any) -> set[str]:
    """A function's name, and those in its own attributes."""
    return {function.name}.union(*(_functions_named_value(value) for value in function.attr.values()))


def _functions_named_value(value: Any) -> set[str]:
    if value.HasField("func"):
        return _functions_in(value.func)
    return set[str]().union(*(_functions_in(function) for function in value.list.func))


def _names_in(tensors: Iterable[Any]) -> list[str]:
    """Names of a signature's tensors, of which the parts of a sparse or composite one are some."""
    found: list[str] = []
    for tensor in tensors:
        sparse, composite = tensor.coo_sparse, tensor.composite_tensor
        found += [
            tensor.name,
            sparse.values_tensor_name,
            sparse.indices_tensor_name,
            sparse.dense_shape_tensor_name,
        ]
        found += _names_in(composite.components)
    return [name for name in found if name]


def _node_of(tensor: str) -> str:
    """`^call` and `call:0` are of the node `call`."""
    return tensor.removeprefix("^").partition(":")[0]
