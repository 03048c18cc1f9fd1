"""Predict requests as JSON: row form ("instances") and columnar form ("inputs"), as TensorFlow Serving reads them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from grpc import StatusCode

from reshelve.serving.runtime import meta_graph_pb2, types_pb2
from reshelve.serving.servables import Arrays
from reshelve.serving.serving_error import ServingError, invalid
from reshelve.serving.tensors import numpy_type, type_name

_INTEGERS = {
    types_pb2.DT_INT32: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT16: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_UINT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: (0, 2**32 - 1),
    types_pb2.DT_UINT64: (0, 2**64 - 1),
}
_FLOATS = {
    types_pb2.DT_FLOAT: (2**24 - 1, float(np.finfo(np.float32).max)),
    types_pb2.DT_DOUBLE: (2**53 - 1, np.inf),
}
TensorInfos = Mapping[str, meta_graph_pb2.TensorInfo]


def parse_body(body: bytes) -> dict[str, Any]:
    """The request as a JSON object. Raises ServingError."""
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg}. at offset: {error.pos}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return document


def to_inputs(document: dict[str, Any], infos: TensorInfos) -> tuple[Arrays, bool]:
    """The input arrays by alias, and whether the request was in row form. Raises ServingError."""
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {_shown(document)} Excepting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {_shown(document)} No values in 'instances' array")
        return _from_rows(instances, infos), True
    if "inputs" in document:
        return _from_columns(document["inputs"], infos), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_columns(inputs: Any, infos: TensorInfos) -> Arrays:
    if not isinstance(inputs, dict) or _is_base64(inputs):
        if len(infos) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        alias = next(iter(infos))
        return {alias: _array(inputs, infos[alias].dtype)}
    arrays: Arrays = {}
    for alias in sorted(infos):
        if alias not in inputs:
            raise invalid(f"Missing named input: {alias} in 'inputs' object.")
        arrays[alias] = _array(inputs[alias], infos[alias].dtype)
    return arrays


def _from_rows(instances: list[Any], infos: TensorInfos) -> Arrays:
    if not isinstance(instances[0], dict) and len(infos) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named = _is_named(instances[0])
    rows: dict[str, list[np.ndarray[Any, Any]]] = {}
    for place, element in enumerate(instances):
        if named != _is_named(element):
            wanted, got = ("object", "list") if named else ("value/list", "object")
            raise invalid(f"Expecting {wanted} but got {got} at item {place} of input list")
        values = element if named else {next(iter(infos)): element}
        for alias, value in values.items():
            try:
                _add_row(rows, alias, value, infos)
            except ServingError as error:
                key = f" key: {alias}" if named else ""
                raise invalid(
                    f"Failed to process element: {place}{key} of 'instances' list. Error: {error}"
                ) from error
        if named and set(element) != set(infos):
            raise invalid(
                f"Failed to process element: {place} of 'instances' list. JSON object: {_shown(element)} keys must be "
                f"equal to: {','.join(sorted(infos))}"
            )
    return {alias: np.stack(values) for alias, values in rows.items()}


def _add_row(rows: dict[str, list[np.ndarray[Any, Any]]], alias: str, value: Any, infos: TensorInfos) -> None:
    if alias not in infos:
        raise invalid(f"JSON object: does not have named input: {alias}")
    array, column = _array(value, infos[alias].dtype), rows.setdefault(alias, [])
    if column and column[0].size != array.size:
        raise invalid(f"Expecting tensor size: {column[0].size} but got: {array.size}")
    if column and column[0].shape != array.shape:
        raise invalid(f"Expecting shape {_shape(column[0].shape)} but got: {_shape(array.shape)}")
    column.append(array)


def _array(value: Any, dtype: int) -> np.ndarray[Any, Any]:
    """A dense tensor of nested lists: its shape is that of the first elements. Raises ServingError."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    flat: list[Any] = []
    _fill(value, 0, shape, dtype, flat)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.astype(numpy_type(dtype)).reshape(shape)


def _fill(value: Any, level: int, shape: list[int], dtype: int, flat: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {rank}"
            )
        flat.append(_scalar(value, dtype))
        return
    if level >= rank:
        raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for element in value:
        _fill(element, level + 1, shape, dtype, flat)


def _scalar(value: Any, dtype: int) -> Any:
    if dtype == types_pb2.DT_STRING:
        if isinstance(value, dict):
            return _from_base64(value)
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
    elif dtype == types_pb2.DT_BOOL:
        if isinstance(value, bool):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if dtype in _FLOATS:
            _refuse_lossy(value, dtype)
            return value
        low, high = _INTEGERS.get(dtype, (0, -1))
        if isinstance(value, int) and low <= value <= high:
            return value
    if (
        dtype not in _INTEGERS
        and dtype not in _FLOATS
        and dtype not in (types_pb2.DT_STRING, types_pb2.DT_BOOL)
    ):
        raise ServingError(
            StatusCode.UNIMPLEMENTED, f"Conversion of JSON Value: {_shown(value)} to type: {type_name(dtype)}"
        )
    raise invalid(
        f"JSON Value: {_shown(value)} Type: {_kind(value)} is not of expected type: {type_name(dtype)}"
    )


def _refuse_lossy(value: float, dtype: int) -> None:
    largest_integer, largest = _FLOATS[dtype]
    lossy = (
        abs(value) > largest_integer
        if isinstance(value, int)
        else np.isfinite(value) and abs(value) > largest
    )
    if lossy:
        raise invalid(
            f"Cannot convert JSON value: {_shown(value)} to {type_name(dtype)} without loss of precision."
        )


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _from_base64(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    for kind, name in ((dict, "Object"), (list, "Array"), (str, "String")):
        if isinstance(value, kind):
            return name
    return "Number"


def _shown(value: Any) -> str:
    return json.dumps(value, indent=4, ensure_ascii=False)


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(str(size) for size in shape) + "]"
