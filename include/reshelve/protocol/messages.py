"""TensorFlow Serving's gRPC messages, without TensorFlow's runtime.

The message modules live inside the `tensorflow` package, whose import costs ten seconds of processor time and
700 MB. A client and an agent need the messages alone, so a bare package stands in while they are imported; a
later `import tensorflow` in the same process finds the real one.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@contextmanager
def bare_tensorflow() -> Iterator[None]:
    """While the block runs, `tensorflow` is a package without its `__init__`; nothing changes if it is imported."""
    if "tensorflow" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None:
        raise ModuleNotFoundError("tensorflow is not installed")
    bare = types.ModuleType("tensorflow")
    bare.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["tensorflow"] = bare
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


with bare_tensorflow():
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2_grpc,
    )
    from tensorflow_serving.config import model_server_config_pb2

__all__ = [
    "from_tensor",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
    "to_tensor",
]

# dtype ↔ (TensorProto dtype, the field that holds values which are not packed into tensor_content)
_NUMBERS: dict[np.dtype[Any], tuple[int, str]] = {
    np.dtype(np.float32): (types_pb2.DT_FLOAT, "float_val"),
    np.dtype(np.float64): (types_pb2.DT_DOUBLE, "double_val"),
    np.dtype(np.int32): (types_pb2.DT_INT32, "int_val"),
    np.dtype(np.int64): (types_pb2.DT_INT64, "int64_val"),
    np.dtype(np.bool_): (types_pb2.DT_BOOL, "bool_val"),
}
_FIELDS: dict[int, tuple[np.dtype[Any], str]] = {
    number: (dtype, field) for dtype, (number, field) in _NUMBERS.items()
}


def to_tensor(values: ArrayLike) -> tensor_pb2.TensorProto:
    """Text, bytes or numbers as a TensorProto; float64 and int64 stay what they are.

    Raises TypeError for other types.
    """
    array = np.asarray(values)
    tensor = tensor_pb2.TensorProto()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "USO":
        tensor.dtype = types_pb2.DT_STRING
        tensor.string_val.extend(
            v.encode() if isinstance(v, str) else bytes(v) for v in array.ravel().tolist()
        )
    elif array.dtype in _NUMBERS:
        tensor.dtype = _NUMBERS[array.dtype][0]
        tensor.tensor_content = np.ascontiguousarray(array).tobytes()
    else:
        raise TypeError(f"no tensor of {array.dtype}")
    return tensor


def from_tensor(tensor: tensor_pb2.TensorProto) -> NDArray[Any]:
    """A TensorProto as an array; text comes as an object array of `str`. Raises TypeError for other types."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype == types_pb2.DT_STRING:
        text = np.array([v.decode(errors="replace") for v in tensor.string_val], dtype=object)
        return text.reshape(shape)
    if tensor.dtype not in _FIELDS:
        raise TypeError(f"no array of {types_pb2.DataType.Name(tensor.dtype)}")
    dtype, field = _FIELDS[tensor.dtype]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype=dtype).reshape(shape)
    values = np.array(getattr(tensor, field), dtype=dtype)
    # One value may stand for all the rest: the encoding that TensorFlow itself uses for constant tensors.
    count = int(np.prod(shape))
    if 0 < len(values) < count:
        values = np.concatenate([values, np.full(count - len(values), values[-1])])
    return values.reshape(shape)
