"""TensorProto to numpy and back, in the wire form that TensorFlow Serving answers with (typed value fields)."""

from __future__ import annotations

from typing import Any

import numpy as np

from reshelve.serving.runtime import TensorShapeProto, dtypes, tensor_pb2, tensor_util, types_pb2
from reshelve.serving.serving_error import ServingError, invalid

# Packed `float_val` (field 5) and `double_val` (field 6) are, byte for byte, a little-endian array.
_PACKED_FIELD = {types_pb2.DT_FLOAT: b"\x2a", types_pb2.DT_DOUBLE: b"\x32"}
_PACKED_TYPE = {types_pb2.DT_FLOAT: "<f4", types_pb2.DT_DOUBLE: "<f8"}
_VALUE_FIELD = {
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_BOOL: "bool_val",
    **dict.fromkeys(
        (types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_INT8, types_pb2.DT_UINT16, types_pb2.DT_UINT8),
        "int_val",
    ),
}


def type_name(dtype: int) -> str:
    """TensorFlow's C++ name of a type: `float`, `int32`, `string`."""
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def numpy_type(dtype: int) -> Any:
    """The numpy type of a DataType; `object` for strings."""
    return dtypes.as_dtype(dtype).as_numpy_dtype


def to_array(alias: str, proto: tensor_pb2.TensorProto) -> np.ndarray[Any, Any]:
    """The values of an input tensor; strings as an object array of bytes. Raises ServingError."""
    try:
        return np.asarray(tensor_util.MakeNdarray(proto))
    except (TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {alias}") from error


def to_proto(array: Any, dtype: int) -> tensor_pb2.TensorProto:
    """A fetched array (or bytes, for a scalar string) of DataType `dtype` as TensorProto. Raises ServingError."""
    if dtype in _PACKED_FIELD:
        return _packed(np.ascontiguousarray(array, dtype=_PACKED_TYPE[dtype]), dtype)
    values = np.asarray(array, dtype=object) if dtype == types_pb2.DT_STRING else np.asarray(array)
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.dim.extend(_dims(values.shape))
    if dtype == types_pb2.DT_STRING:
        proto.string_val.extend(values.ravel().tolist())
    elif dtype in _VALUE_FIELD:
        getattr(proto, _VALUE_FIELD[dtype]).extend(values.ravel().tolist())
    else:  # half, bfloat16, complex: rare in a ranker's answer
        try:
            return tensor_util.make_tensor_proto(values)
        except (TypeError, ValueError) as error:
            raise ServingError.of(error) from error
    return proto


def _dims(shape: tuple[int, ...]) -> list[Any]:
    return [TensorShapeProto.Dim(size=size) for size in shape]


def _packed(array: np.ndarray[Any, Any], dtype: int) -> tensor_pb2.TensorProto:
    """Parse the wire bytes instead of appending value by value: 100 times faster for a [32, 4000] answer."""
    header = tensor_pb2.TensorProto(dtype=dtype)
    header.tensor_shape.dim.extend(_dims(array.shape))
    body = array.tobytes()
    length, size = b"", len(body)
    while True:
        length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            break
    return tensor_pb2.TensorProto.FromString(
        header.SerializeToString() + _PACKED_FIELD[dtype] + length + body
    )
