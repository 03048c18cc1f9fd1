"""A graph that does nothing, under which a model server gets to know a ranker before it loads a version of it.

TensorFlow Serving's ReloadConfig waits until every model that is *new* to it has loaded, and every other reload waits
behind it: for as long as the first load of one ranker takes, no label of another could move. Under a placeholder, which
loads at once, a ranker is new only for a moment; its real version is then a further version of a known model, for which
no reload waits (decision 0158).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from reshelve.files import open_to_others, write_whole
from reshelve.protocol.messages import bare_tensorflow

with bare_tensorflow():
    from tensorflow.core.protobuf import saved_model_pb2

PLACEHOLDER = 1  # no real version is: they begin with a date
_FOLDER = ".placeholder"
_PRODUCER = 1087  # of the graph's format: read by every TensorFlow since 2.2


def placeholder_path(models: Path) -> Path:
    """The base path of the placeholder in a models directory; the server is told to look there for version 1."""
    return models / _FOLDER


def write_placeholder(models: Path) -> None:
    """Make it where it is missing or not as it was: a SavedModel without signatures, so that a request to it is refused."""
    path = placeholder_path(models) / str(PLACEHOLDER) / "saved_model.pb"
    graph = _graph()
    if not (path.is_file() and path.read_bytes() == graph and list(path.parent.iterdir()) == [path]):
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, graph)
    open_to_others(placeholder_path(models))


def _graph() -> bytes:
    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = model.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.node.add(name="nothing", op="NoOp")
    meta.graph_def.versions.producer = _PRODUCER
    return bytes(model.SerializeToString(deterministic=True))
