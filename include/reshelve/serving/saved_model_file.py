"""Read `saved_model.pb` as TensorFlow's loader does, with its codes for what is missing, truncated or garbage."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError
from grpc import StatusCode

from reshelve.serving.runtime import meta_graph_pb2, saved_model_pb2
from reshelve.serving.serving_error import ServingError, not_found

_FIXED_SIZE = {1: 8, 5: 4}


def read_serving_graph(directory: Path) -> meta_graph_pb2.MetaGraphDef:
    """The graph tagged `serve` of the SavedModel in `directory`. Raises ServingError."""
    path = directory / "saved_model.pb"
    if not path.is_file():
        raise not_found(
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {directory}"
        )
    content = path.read_bytes()
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString(content)
    except DecodeError as error:
        if _ends_too_early(content):
            raise ServingError(StatusCode.OUT_OF_RANGE, "Read less bytes than requested") from error
        raise ServingError(StatusCode.DATA_LOSS, f"Can't parse {path} as binary proto") from error
    for graph in saved_model.meta_graphs:
        if set(graph.meta_info_def.tags) == {"serve"}:
            return graph
    raise not_found(
        "Could not find meta graph def matching supplied tags: { serve }. To inspect available tag-sets in the "
        "SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )


def _ends_too_early(content: bytes) -> bool:
    """Whether a message that does not parse is one that was cut: its outermost fields are sound up to the end."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        wire_type = tag & 7
        if tag >> 3 == 0 or wire_type not in (0, 1, 2, 5):
            return False
        if wire_type == 0:
            _, place = _varint(content, place)
        elif wire_type == 2:
            size, place = _varint(content, place)
            place += size
        else:
            place += _FIXED_SIZE[wire_type]
    return place > len(content)


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A variable-length integer and where it ends; beyond the end of `content` if it is cut."""
    value = shift = 0
    while place < len(content):
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, place
    return value, len(content) + 1
