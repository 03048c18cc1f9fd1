"""A SavedModel of some hundred bytes, for tests in which no server asks it anything."""

from __future__ import annotations

from tensorflow.core.protobuf.saved_model_pb2 import SavedModel


def graph_bytes(name: str = "nothing") -> bytes:
    """`saved_model.pb` with one node of that name; names of one length give as many bytes."""
    saved = SavedModel(saved_model_schema_version=1)
    meta = saved.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.node.add(name=name, op="NoOp")
    return bytes(saved.SerializeToString(deterministic=True))
