"""A SavedModel holds only what the model server's TensorFlow knows, which is older than the one that writes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from reshelve.errors import DataError
from reshelve.export.operations import PRODUCER, SERVER, check_operations
from reshelve.settings import PROJECT, settings


def a_version(directory: Path, *nodes: NodeDef, within: bool = False, min_consumer: int = 0) -> Path:
    """A SavedModel of these nodes, in its graph or in a function of it."""
    saved = SavedModel()
    graph = saved.meta_graphs.add().graph_def
    graph.versions.min_consumer = min_consumer
    if within:
        function = graph.library.function.add()
        function.signature.name = "inner"
        function.node_def.extend(nodes)
        graph.node.append(NodeDef(name="call", op="inner"))
    else:
        graph.node.extend(nodes)
    (directory / "saved_model.pb").write_bytes(saved.SerializeToString())
    return directory


def list_item(shape: int | None = None) -> NodeDef:
    node = NodeDef(name="item", op="TensorListGetItem")
    if shape is not None:
        node.attr["Tshape"].type = shape
    return node


@pytest.mark.parametrize("within", [False, True], ids=["in the graph", "in a function"])
def test_what_the_server_does_not_know_is_refused(tmp_path: Path, within: bool) -> None:
    node = list_item(types_pb2.DT_INT64)
    with pytest.raises(DataError, match=r"that stock servers lack: TensorListGetItem\.Tshape\n") as told:
        check_operations(a_version(tmp_path, node, within=within))
    assert SERVER in told.value.detail


@pytest.mark.parametrize("within", [False, True], ids=["in the graph", "in a function"])
@pytest.mark.parametrize("name", ["DecodeJxl", "EagerPyFunc", "NobodysOp"])
def test_what_no_graph_needs_is_refused(tmp_path: Path, name: str, within: bool) -> None:
    where = "in function inner" if within else "in the graph"
    with pytest.raises(DataError, match=f"would do more than compute: {name} {where}"):
        check_operations(a_version(tmp_path, NodeDef(name="n", op=name), within=within))


@pytest.mark.parametrize("name", ["DecodeJxl", "NobodysOp"])
def test_what_an_installation_allows_must_be_known_to_the_server_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("RESHELVE_GRAPH_OPERATIONS", name)
    settings.cache_clear()
    with pytest.raises(DataError, match=f"that stock servers lack: {name}"):
        check_operations(a_version(tmp_path, NodeDef(name="n", op=name)))


@pytest.mark.parametrize("shape", [None, types_pb2.DT_INT32])
def test_an_attribute_at_its_default_is_none_to_an_older_reader(tmp_path: Path, shape: int | None) -> None:
    found = check_operations(a_version(tmp_path, list_item(shape), NodeDef(name="m", op="MatMul")))
    assert found == ["MatMul", "TensorListGetItem"]


def test_a_graph_for_newer_readers_is_refused(tmp_path: Path) -> None:
    assert check_operations(a_version(tmp_path, min_consumer=PRODUCER)) == []
    with pytest.raises(DataError, match=f"a reader of version {PRODUCER + 1}"):
        check_operations(a_version(tmp_path, min_consumer=PRODUCER + 1))


def test_the_server_is_the_one_that_is_started() -> None:
    services = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())["services"]
    named = re.compile(r"tensorflow/serving:[\d.]+")
    images = {found for s in services.values() for found in named.findall(s.get("image", ""))}
    pages = (PROJECT / "docs" / "how-to" / "kubernetes.md").read_text()
    assert images == {f"tensorflow/serving:{SERVER}"} == set(named.findall(pages))
