"""Whether a SavedModel only computes: its graphs, and its files by name.

Without TensorFlow's runtime: an agent asks this of every version that it copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from reshelve.errors import DataError
from reshelve.protocol.allowed_operations import OPERATIONS
from reshelve.protocol.graph_check import GraphCheck, Node
from reshelve.protocol.messages import bare_tensorflow
from reshelve.settings import settings

with bare_tensorflow():
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

GRAPH = "saved_model.pb"
_PLACES = frozenset({GRAPH, "fingerprint.pb", "variables", "assets", "assets.extra"})
_EXTRA_READ_BY_SERVERS = frozenset(
    {"saved_model_config.pb"}
)  # beside the warm-up: it would change how a graph is run
_MOST_NAMED = 5


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
        problems = list(dict.fromkeys(GraphCheck(meta, assets).problems(allowed)))
        if problems:
            more = f" and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
            raise DataError(
                f"the graph would do more than compute: {'; '.join(problems[:_MOST_NAMED])}{more}",
                "expected the operations of reshelve/protocol/allowed_operations.py alone; see docs/reference/version-format.md",
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
