"""Whether one graph of a SavedModel only computes: its operations by the list, and where files may be read at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from reshelve.protocol.allowed_operations import ASSIGN, RESTORE, SAVE, TABLE_FROM_FILE
from reshelve.protocol.messages import bare_tensorflow

with bare_tensorflow():
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2

_NAME_OF_FUNCTION = re.compile(r"_*[a-z].*|.*_[0-9]+", re.DOTALL)  # no operation of TensorFlow is called so
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_READS = frozenset({"ReadVariableOp", "VarIsInitializedOp"})
_START = "__saved_model_init_op"
_COLLECTION = "saved_model_main_op"
_NO_VALUES = frozenset({types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT})
_LONGEST_NAME = 80
_PLAIN = re.compile(rf"[\w.<>/-]{{1,{_LONGEST_NAME}}}", re.ASCII)

Node = Any  # a NodeDef
Function = Any  # a FunctionDef


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
        return f"in function {_plain(self.name)}" if self.function else "in the graph"


class GraphCheck:
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
                yield f"a function is called {name[:_LONGEST_NAME]!r}" + (" twice" if times > 1 else "")
        if odd := sorted(set(self._meta.collection_def) - {_COLLECTION}):
            yield f"it has a collection {', '.join(map(_plain, odd))}"
        saver = self._meta.saver_def
        save, restore = (self._called(name) for name in (saver.save_tensor_name, saver.restore_op_name))
        for body in self._bodies:
            may = allowed
            if body.name and body.name == restore:
                may = may | RESTORE | ASSIGN
            elif body.name and body.name == save:
                may = may | SAVE
            for node in body.nodes:
                if node.op in TABLE_FROM_FILE and node.op not in may:
                    yield from self._problems_of_table(body, node)
                elif node.op in ASSIGN and node.op not in may:
                    if body.function or node.name in self._asked:
                        yield f"{node.op} {body.where} changes a variable after it was restored"
                elif node.op not in may and node.op not in self._functions:
                    yield f"{_plain(node.op)} {body.where}"
                elif node.op == "Const" and node.attr["dtype"].type in _NO_VALUES:
                    yield f"a constant that is a handle {body.where}"
                # A branch that is lowered becomes a node of the operation that it names, function or not.
                for name in sorted(_functions_named(node) - self._functions.keys()):
                    yield f"{_plain(name)} {body.where}, named as a function"
            if body.function is not None and _hands_on_functions(body.function):
                yield f"a function as a value of an attribute {body.where}"
        yield from self._problems_of_savers({name for name in (save, restore) if name}, restore)
        yield from self._problems_of_assets()

    def _called(self, tensor: str) -> str | None:
        """The function that the node of a tensor calls."""
        node = self._nodes.get(_node_of(tensor)) if tensor else None
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
                yield f"{_plain(name)}, which saves or restores, is called {within[0] if within else 'more than once'}"
                continue
            (node,) = (node for _, node in callers)
            if node.name in self._asked | self._started:
                yield f"{_plain(name)}, which saves or restores, is run by a request or at the start"
        for body in self._bodies:
            if body.function is None or body.name not in savers:
                continue
            if body.name == restore:
                yield from self._problems_of_restore(body, path)
            if any(name.startswith("api_") for name in body.function.attr):
                yield f"{_plain(body.name)}, which saves or restores, stands in for another function"

    def _problems_of_restore(self, body: _Body, path: str) -> Iterator[str]:
        first = (
            next((argument.name for argument in body.function.signature.input_arg), None)
            if body.function
            else None
        )
        prefixes = {_input(node, 0) for node in body.nodes if node.op in RESTORE}
        ((_, call), *_) = self._callers[body.name]
        is_ours = (
            _node_of(_input(call, 0)) == path
            and path in self._nodes
            and self._nodes[path].op == "Placeholder"
        )
        if prefixes and (prefixes != {first} or not is_ours):
            yield f"RestoreV2 {body.where} reads other files than the version's own variables"

    def _problems_of_table(self, body: _Body, node: Node) -> Iterator[str]:
        """A file may fill a table when a version is loaded: only then is an asset's path the true one."""
        tensors, runs = [_input(node, 1)], [node.name]
        if body.function:
            arguments = [argument.name for argument in body.function.signature.input_arg]
            callers = self._callers.get(body.name, [])
            direct = all(at.function is None and call.op in _CALLS for at, call in callers)
            if not direct or tensors[0] not in arguments:
                yield f"{node.op} {body.where} reads a file that is no asset"
                return
            place = arguments.index(tensors[0])
            tensors, runs = [_input(call, place) for _, call in callers], [call.name for _, call in callers]
        if not all(self._is_asset(tensor) for tensor in tensors):
            yield f"{node.op} {body.where} reads a file that is no asset"
        if self._asked & set(runs):
            yield f"{node.op} {body.where} is run by a request"

    def _is_asset(self, tensor: str) -> bool:
        """Whether it is an asset's path, or a variable that holds nothing else."""
        node = self._nodes.get(_node_of(tensor))
        if node is None:
            return False
        paths = {_node_of(asset.tensor_info.name) for asset in self._meta.asset_file_def}
        if node.op == "Placeholder":  # the loader gives it; without, nothing that needs it runs
            return node.name in paths
        handle = self._nodes.get(_node_of(_input(node, 0))) if node.op == "ReadVariableOp" else None
        if handle is None or handle.op != "VarHandleOp":
            return False
        everywhere = (other for body in self._bodies for other in body.nodes if other.op == "VarHandleOp")
        if [_resource(other) for other in everywhere].count(_resource(handle)) != 1:
            return False
        users = [user for user in self._nodes.values() if handle.name in map(_node_of, user.input)]
        return all(
            user.op in _READS or (user.op == "AssignVariableOp" and _node_of(_input(user, 1)) in paths)
            for user in users
        )

    def _problems_of_assets(self) -> Iterator[str]:
        for asset in self._meta.asset_file_def:
            if asset.filename not in self._assets:
                yield f"its asset {asset.filename[:_LONGEST_NAME]!r} is no file of its assets"


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


def _hands_on_functions(function: Function) -> bool:
    """Whether it brings functions itself, by attributes or their defaults: its nodes may call them without a name."""
    own = [argument.default_value for argument in function.signature.attr]
    own += [
        *function.attr.values(),
        *(one for each in function.arg_attr.values() for one in each.attr.values()),
    ]
    return any(_functions_named_value(value) for value in own)


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


def _plain(name: str) -> str:
    """A name out of the file, as it may stand in reports and logs."""
    return name if _PLAIN.fullmatch(name) else repr(name[:_LONGEST_NAME])


def _input(node: Node, place: int) -> str:
    return str(node.input[place]) if place < len(node.input) else ""


def _resource(variable: Node) -> bytes:
    """What a variable is called by all that mean the same one."""
    return bytes(variable.attr["shared_name"].s or variable.name.encode())


def _node_of(tensor: str) -> str:
    """`^call` and `call:0` are of the node `call`."""
    return tensor.removeprefix("^").partition(":")[0]
