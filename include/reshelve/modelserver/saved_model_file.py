"""Read a SavedModel's signatures as TensorFlow's loader does, with its codes for what is missing, truncated or garbage.

The graph with its weights is most of the file. TensorFlow reads it by itself; here it is passed over, since Python would
hold up every request while it made a message of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError
from grpc import StatusCode

from reshelve.modelserver.runtime import meta_graph_pb2
from reshelve.modelserver.serving_error import ServingError, not_found

_FIXED_SIZE = {1: 8, 5: 4}
_LONGEST_VARINT = 10
_META_GRAPHS = 2  # of SavedModel
_LARGE = {2, 7}  # of MetaGraphDef: graph_def, object_graph_def


@dataclass(frozen=True)
class _Field:
    """Where a field of a message is in the file: its tag, its value, its end."""

    number: int
    tag: int
    value: int
    end: int


class _BrokenError(Exception):
    """Not a message."""


def read_meta_graph(directory: Path) -> meta_graph_pb2.MetaGraphDef:
    """The meta graph tagged `serve` of the SavedModel in `directory`, without its graph. Raises ServingError."""
    path = directory / "saved_model.pb"
    if not path.is_file():
        raise not_found(
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {directory}"
        )
    with path.open("rb") as file:
        size = path.stat().st_size
        try:
            outermost = list(_fields(file, 0, size))
            if outermost and outermost[-1].end > size:
                raise ServingError(StatusCode.OUT_OF_RANGE, "Read less bytes than requested")
            for field in outermost:
                if field.number == _META_GRAPHS:
                    found = _meta_graph(file, field)
                    if found is not None:
                        return found
        except (_BrokenError, DecodeError) as error:
            raise ServingError(StatusCode.DATA_LOSS, f"Can't parse {path} as binary proto") from error
    raise not_found(
        "Could not find meta graph def matching supplied tags: { serve }. To inspect available tag-sets in the "
        "SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )


def _meta_graph(file: BinaryIO, where: _Field) -> meta_graph_pb2.MetaGraphDef | None:
    """The meta graph in a field of the file, or None where it is not tagged `serve`."""
    fields = list(_fields(file, where.value, where.end))
    if fields and fields[-1].end > where.end:
        raise _BrokenError
    small = [field for field in fields if field.number not in _LARGE]
    meta = meta_graph_pb2.MetaGraphDef.FromString(b"".join(_read(file, f.tag, f.end) for f in small))
    return meta if set(meta.meta_info_def.tags) == {"serve"} else None


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message between `start` and `end`; the last one ends later where the message was cut.

    Raises _BrokenError where the bytes are no message.
    """
    while start < end:
        head = _read(file, start, min(end, start + 2 * _LONGEST_VARINT))
        tag, place = _varint(head, 0)
        wire_type, size = tag & 7, 0
        if tag >> 3 == 0 or wire_type not in (0, 1, 2, 5):
            raise _BrokenError
        if wire_type == 0:
            _, place = _varint(head, place)
        elif wire_type == 2:
            size, place = _varint(head, place)
        else:
            size = _FIXED_SIZE[wire_type]
        yield _Field(tag >> 3, start, start + place, start + place + size)
        start += place + size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A variable-length integer and where it ends; beyond the end of `content` if it is cut.

    Raises _BrokenError where it is longer than one may be.
    """
    value = 0
    for used in range(_LONGEST_VARINT):
        if place + used >= len(content):
            return value, len(content) + 1
        byte = content[place + used]
        value |= (byte & 0x7F) << (7 * used)
        if not byte & 0x80:
            return value, place + used + 1
    raise _BrokenError


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)
