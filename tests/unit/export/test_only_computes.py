"""A graph can only compute: SavedModels that do more, as an attacker would make them, are refused where they are packaged."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry
from tests import attacks

from reshelve.errors import DataError
from reshelve.export.operations import NEWER, check_operations
from reshelve.protocol.allowed_operations import (
    ASSIGN,
    GROUPS,
    OPERATIONS,
    RESTORE,
    SAVE,
    TABLE_FROM_FILE,
)
from reshelve.protocol.saved_model_check import check_saved_model
from reshelve.settings import settings

FILES = {"ReadFile", "WriteFile", "MatchingFiles", "SaveV2", "RestoreV2", "PyFunc", "EagerPyFunc", "PrintV2", "Abort", "RemoteCall",
         "DebugIdentityV2", "DebugNumericSummaryV2", "InitializeTableFromTextFileV2", "TextLineDataset", "IteratorGetNext", "RpcCall",
         "_Send", "_Recv", "CollectiveReduceV2", "WriteSummary", "LMDBReader", "TfRecordDatasetV2", "ReaderReadV2", "Save", "Restore",
         "RegisterDataset", "DataServiceDataset", "XlaLaunch", "WriteAudioSummary", "QueueEnqueueV2", "MutableHashTableV2", "Stage",
         }  # fmt: skip


def test_the_list_is_of_operations_that_compute_and_that_every_server_knows() -> None:
    named = [name for names in GROUPS.values() for name in names.split()]
    assert len(named) == len(OPERATIONS), "each in one group"
    assert not OPERATIONS & FILES
    for name in sorted(OPERATIONS | RESTORE | SAVE | ASSIGN | TABLE_FROM_FILE):
        assert op_def_registry.get(name) is not None, name
        assert NEWER.get(name) != frozenset(), name


@pytest.fixture(scope="session")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("harmless") / "version"
    attacks.harmless(path)
    return path


@pytest.fixture
def version(harmless: Path, tmp_path: Path) -> Path:
    """A version with a variable and a table, to be changed."""
    return Path(shutil.copytree(harmless, tmp_path / "version"))


def refuse(version: Path, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        check_operations(version)


def test_a_variable_and_a_table_are_no_harm(version: Path) -> None:
    used = check_operations(version)
    assert {"RestoreV2", "SaveV2", "LookupTableImportV2", "VarHandleOp"} <= set(used)


@pytest.mark.parametrize("attack", attacks.GRAPHS)
def test_an_operation_that_does_more_is_refused_with_its_place(tmp_path: Path, attack: str) -> None:
    graph, operation = attacks.GRAPHS[attack]
    attacks.Asked(graph).save(tmp_path / "version")
    refuse(tmp_path / "version", f"{operation} in ")


def test_every_graph_of_the_file_is_looked_at(version: Path) -> None:
    def second(saved: SavedModel) -> None:
        other = saved.meta_graphs.add()
        other.meta_info_def.tags.append("train")
        other.graph_def.node.add(name="n", op="ReadFile")

    attacks.rewrite(version, second)
    refuse(version, "ReadFile in the graph")


def restore_function(saved: SavedModel) -> str:
    (meta,) = saved.meta_graphs
    nodes = {node.name: node for node in meta.graph_def.node}
    return str(nodes[meta.saver_def.restore_op_name].attr["f"].func.name)


def save_function(saved: SavedModel) -> str:
    (meta,) = saved.meta_graphs
    nodes = {node.name: node for node in meta.graph_def.node}
    return str(nodes[meta.saver_def.save_tensor_name.partition(":")[0]].attr["f"].func.name)


def asks_the_saver(saved: SavedModel) -> None:
    """A signature whose answer is what the save function gives."""
    (meta,) = saved.meta_graphs
    signature = meta.signature_def["steal"]
    signature.inputs["path"].name = meta.saver_def.filename_tensor_name
    signature.outputs["done"].name = meta.saver_def.save_tensor_name


def starts_with_the_saver(saved: SavedModel) -> None:
    (meta,) = saved.meta_graphs
    (start,) = (node for node in meta.graph_def.node if node.op == "NoOp" and node.name == "NoOp")
    start.input.append("^" + meta.saver_def.save_tensor_name.partition(":")[0])


def calls_the_saver_from_a_function(saved: SavedModel) -> None:
    (meta,) = saved.meta_graphs
    function = next(f for f in meta.graph_def.library.function if "signature_wrapper" in f.signature.name)
    node = function.node_def.add(
        name="more", op="PartitionedCall", input=[function.signature.input_arg[0].name]
    )
    node.attr["f"].func.name = save_function(saved)


def stands_in_for_another_function(saved: SavedModel) -> None:
    (meta,) = saved.meta_graphs
    for function in meta.graph_def.library.function:
        if function.signature.name == save_function(saved) or "signature_wrapper" in function.signature.name:
            function.attr["api_implements"].s = b"one"


def restores_at_the_load_from_elsewhere(saved: SavedModel) -> None:
    name = restore_function(saved)
    (function,) = (f for f in saved.meta_graphs[0].graph_def.library.function if f.signature.name == name)
    path = function.node_def.add(name="elsewhere", op="Const")
    path.attr["value"].tensor.string_val.append(b"/models/another/1/variables/variables")
    (node,) = (node for node in function.node_def if node.op == "RestoreV2")
    node.input[0] = "elsewhere:output:0"


def restores_a_path_of_the_graph(saved: SavedModel) -> None:
    (meta,) = saved.meta_graphs
    path = meta.graph_def.node.add(name="elsewhere", op="Const")
    path.attr["value"].tensor.string_val.append(b"/models/another/1/variables/variables")
    nodes = {node.name: node for node in meta.graph_def.node}
    nodes[meta.saver_def.restore_op_name].input[0] = "elsewhere"


def saves_where_it_restores(saved: SavedModel) -> None:
    saver = saved.meta_graphs[0].saver_def
    saver.restore_op_name = saver.save_tensor_name.partition(":")[0]


def has_a_function_called_like_an_operation(saved: SavedModel) -> None:
    library = saved.meta_graphs[0].graph_def.library
    library.function.add().signature.name = "ReadFile"
    library.function[0].node_def.add(name="n", op="ReadFile")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (asks_the_saver, "which saves or restores, is run by a request or at the start"),
        (starts_with_the_saver, "which saves or restores, is run by a request or at the start"),
        (calls_the_saver_from_a_function, "which saves or restores, is called in function"),
        (stands_in_for_another_function, "which saves or restores, stands in for another function"),
        (restores_at_the_load_from_elsewhere, "reads other files than the version's own variables"),
        (restores_a_path_of_the_graph, "reads other files than the version's own variables"),
        (saves_where_it_restores, "SaveV2 in function"),
        (has_a_function_called_like_an_operation, "a function is called 'ReadFile'"),
    ],
)
def test_what_every_saved_model_has_for_its_variables_serves_nothing_else(
    version: Path, change: Callable[[SavedModel], None], words: str
) -> None:
    attacks.rewrite(version, change)
    refuse(version, words)


BRANCHES = {
    "If": "then_branch", "StatelessIf": "else_branch", "Case": "branches", "StatelessCase": "branches", "While": "body",
    "StatelessWhile": "cond", "PartitionedCall": "f", "StatefulPartitionedCall": "f",
}  # fmt: skip


@pytest.mark.parametrize("within", ["graph", "function"])
@pytest.mark.parametrize("op", BRANCHES)
def test_what_is_called_is_a_function_of_the_graph(version: Path, op: str, within: str) -> None:
    """TensorFlow lowers a branch to a node of what it names: an operation would be run."""

    def calls_an_operation(saved: SavedModel) -> None:
        graph = saved.meta_graphs[0].graph_def
        nodes = graph.node if within == "graph" else graph.library.function[0].node_def
        node = nodes.add(name="branch", op=op)
        node.attr["_lower_using_switch_merge"].b = True
        named = node.attr[BRANCHES[op]]
        function = named.list.func.add() if BRANCHES[op] == "branches" else named.func
        function.name = "ReadFile"

    attacks.rewrite(version, calls_an_operation)
    refuse(version, "ReadFile in ")


def test_an_operation_is_not_handed_on_to_a_function(version: Path) -> None:
    def hands_on(saved: SavedModel) -> None:
        node = saved.meta_graphs[0].graph_def.node.add(name="branch", op="PartitionedCall")
        function = node.attr["f"].func
        function.name = saved.meta_graphs[0].graph_def.library.function[0].signature.name
        function.attr["handed"].list.func.add().name = "ReadFile"

    attacks.rewrite(version, hands_on)
    refuse(version, "ReadFile in the graph, named as a function")


@pytest.mark.parametrize("where", ["default", "attribute", "argument"])
def test_a_function_brings_no_operation_itself(version: Path, where: str) -> None:
    """A node of its body may take what it calls from there."""

    def brings(saved: SavedModel) -> None:
        function = saved.meta_graphs[0].graph_def.library.function[0]
        if where == "default":
            function.signature.attr.add(name="handed", type="func").default_value.func.name = "ReadFile"
        elif where == "attribute":
            function.attr["handed"].func.name = "ReadFile"
        else:
            function.arg_attr[0].attr["handed"].list.func.add().name = "ReadFile"

    attacks.rewrite(version, brings)
    refuse(version, "a function as a value of an attribute in function")


def names_no_asset(saved: SavedModel) -> None:
    saved.meta_graphs[0].ClearField("asset_file_def")


def assigns_another_path(saved: SavedModel) -> None:
    graph = saved.meta_graphs[0].graph_def
    graph.node.add(name="elsewhere", op="Const").attr["value"].tensor.string_val.append(b"/etc/passwd")
    (variable,) = (node.name for node in graph.node if node.op == "VarHandleOp")
    graph.node.add(name="more", op="AssignVariableOp", input=[variable, "elsewhere"])


def shares_the_variable(saved: SavedModel) -> None:
    graph = saved.meta_graphs[0].graph_def
    (variable,) = (node for node in graph.node if node.op == "VarHandleOp")
    graph.node.add(name="another", op="VarHandleOp").attr["shared_name"].s = variable.attr["shared_name"].s


def test_a_table_is_filled_from_a_file_of_the_version_alone(tmp_path: Path) -> None:
    attacks.with_asset(tmp_path / "own")
    assert "InitializeTableFromTextFileV2" in check_operations(tmp_path / "own")
    attacks.with_asset(tmp_path / "foreign", "../../../../etc/passwd")
    refuse(tmp_path / "foreign", "its asset '../../../../etc/passwd' is no file of its assets")
    for number, change in enumerate([names_no_asset, assigns_another_path, shares_the_variable]):
        changed = Path(shutil.copytree(tmp_path / "own", tmp_path / str(number)))
        attacks.rewrite(changed, change)
        refuse(changed, "reads a file that is no asset")


class Counter(tf.Module):
    """What it answers depends on who asked before."""

    def __init__(self, within: bool) -> None:
        super().__init__()
        self.count = tf.Variable(0.0)

        def asked(x: tf.Tensor) -> dict[str, tf.Tensor]:
            if within:
                self.count.assign(tf.reduce_sum(x))
            return {"y": x + self.count.read_value()}

        spec = tf.TensorSpec([None], tf.float32, name="x")
        self.asked = tf.function(asked, input_signature=[spec], autograph=False).get_concrete_function()


def test_a_request_changes_no_variable(tmp_path: Path) -> None:
    for within in (False, True):
        module = Counter(within)
        tf.saved_model.save(module, str(tmp_path / str(within)), signatures={"serving_default": module.asked})
    assert "ReadVariableOp" in check_operations(tmp_path / "False")
    refuse(tmp_path / "True", "changes a variable after it was restored")

    def assigns_in_the_graph(saved: SavedModel) -> None:
        (meta,) = saved.meta_graphs
        variable = next(node.name for node in meta.graph_def.node if node.op == "VarHandleOp")
        value = next(node.name for node in meta.graph_def.node if node.op == "Placeholder")
        meta.graph_def.node.add(name="write", op="AssignVariableOp", input=[variable, value])
        output = next(iter(meta.signature_def["serving_default"].outputs.values())).name.partition(":")[0]
        next(node for node in meta.graph_def.node if node.name == output).input.append("^write")

    attacks.rewrite(tmp_path / "False", assigns_in_the_graph)
    refuse(tmp_path / "False", "AssignVariableOp in the graph changes a variable")


def test_a_request_does_not_fill_a_table_from_a_file(tmp_path: Path) -> None:
    """Only at the start does TensorFlow put the asset's true path in place of what the graph says."""
    attacks.with_asset(tmp_path / "version")

    def ask(saved: SavedModel) -> None:
        (meta,) = saved.meta_graphs
        (call,) = (node for node in meta.graph_def.node if "initializer" in node.attr["f"].func.name)
        meta.signature_def["serving_default"].outputs["more"].name = f"{call.name}:0"

    attacks.rewrite(tmp_path / "version", ask)
    refuse(tmp_path / "version", "is run by a request")


@pytest.mark.parametrize(
    "name", ["saved_model.pbtxt", "saved_model.cpb", "assets.extra/saved_model_config.pb"]
)
def test_a_version_has_no_file_that_a_server_would_take_for_something_else(version: Path, name: str) -> None:
    (version / name).parent.mkdir(exist_ok=True)
    (version / name).write_bytes(b"")
    refuse(version, f"files that no version of Reshelve has: {Path(name).name}")


@pytest.mark.parametrize("content", [b"no graph", b"\x12\xff\xff\xff\xff\x0f"], ids=["garbage", "truncated"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    refuse(tmp_path, f"{tmp_path} has no saved_model.pb")
    (tmp_path / "saved_model.pb").write_bytes(content)
    refuse(tmp_path, "saved_model.pb is no SavedModel")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    refuse(tmp_path, "saved_model.pb has no graph")


def test_an_installation_may_allow_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attacks.Asked(attacks.GRAPHS["lists"][0]).save(tmp_path / "version")
    monkeypatch.setenv("RESHELVE_GRAPH_OPERATIONS", "MatchingFiles, NobodysOp")
    settings.cache_clear()
    assert check_saved_model(tmp_path / "version")
