"""Predict requests as JSON: row form ("instances") and columnar form ("inputs"), as TensorFlow Serving reads them."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from grpc import StatusCode

from reshelve.modelserver.json_text import (
    NOTHING,
    Members,
    Named,
    member,
    parse,
    shown,
    to_bytes,
    to_text,
    too_big,
)
from reshelve.modelserver.runtime import meta_graph_pb2, types_pb2
from reshelve.modelserver.servables import Arrays
from reshelve.modelserver.serving_error import ServingError, invalid
from reshelve.modelserver.tensors import MAX_DIMENSIONS, numpy_type, type_name

# Small integers are read as 32 bits, and what a smaller type cannot hold is cut off, as in C++.
_INTEGERS: Mapping[int, tuple[int, int, Any]] = {
    **dict.fromkeys(
        (types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_INT8, types_pb2.DT_UINT8),
        (-(2**31), 2**31 - 1, np.int32),
    ),
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1, np.int64),
    types_pb2.DT_UINT32: (0, 2**32 - 1, np.uint32),
    types_pb2.DT_UINT64: (0, 2**64 - 1, np.uint64),
}
_FLOATS = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_NUMBERS, _WHOLE_NUMBERS = ({int}, {float}, {int, float}), {int}
_WITHOUT_SPACE = dict.fromkeys(map(ord, " \t\n\v\f\r"))
TensorInfos = Mapping[str, meta_graph_pb2.TensorInfo]


def parse_body(body: bytes) -> Members:
    """The request as a JSON object. Raises ServingError."""
    document = parse(body)
    if not isinstance(document, tuple):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def signature_name(document: Members) -> str:
    """The signature that the request names, "" for none. Raises ServingError."""
    name = member(document, "signature_name")
    if name is NOTHING:
        return ""
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return to_text(name)


def to_inputs(document: Members, infos: TensorInfos) -> tuple[Arrays, bool]:
    """The input arrays by alias, and whether the request was in row form. Raises ServingError."""
    instances, inputs = member(document, "instances"), member(document, "inputs")
    if instances is not NOTHING and inputs is not NOTHING:
        raise invalid(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if instances is not NOTHING:
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {shown(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
        return _from_rows(instances, infos), True
    if inputs is not NOTHING:
        return _from_columns(inputs, infos), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_columns(inputs: Any, infos: TensorInfos) -> Arrays:
    if not isinstance(inputs, tuple) or _is_base64(inputs):
        if len(infos) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        alias = next(iter(infos))
        return {alias: _array(alias, inputs, infos[alias].dtype)}
    arrays: Arrays = {}
    for alias in sorted(infos):
        value = member(inputs, alias)
        if value is NOTHING:
            raise invalid(f"Missing named input: {alias} in 'inputs' object.")
        arrays[alias] = _array(alias, value, infos[alias].dtype)
    return arrays


def _from_rows(instances: list[Any], infos: TensorInfos) -> Arrays:
    if not isinstance(instances[0], tuple) and len(infos) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named, types = _is_named(instances[0]), {alias: info.dtype for alias, info in infos.items()}
    only = next(iter(types))
    columns: dict[str, _Column] = {}
    for place, element in enumerate(instances):
        if named != _is_named(element):
            wanted, got = ("object", "list") if named else ("value/list", "object")
            raise invalid(f"Expecting {wanted} but got {got} at item {place} of input list")
        for alias, value in element if named else ((only, element),):
            try:
                _add_row(columns, alias, value, types)
            except ServingError as error:
                key = f" key: {to_text(alias)}" if named else ""
                raise invalid(
                    f"Failed to process element: {place}{key} of 'instances' list. Error: {error}"
                ) from error
        if named and {alias for alias, _ in element} != types.keys():
            raise invalid(
                f"Failed to process element: {place} of 'instances' list. JSON object: {shown(element)} keys must be "
                f"equal to: {','.join(sorted(types))}"
            )
    rows = len(instances)
    # A name that an object repeats gives more values than there are rows: the first ones are taken.
    return {
        alias: _of(column.values, types[alias])[: rows * column.size].reshape([rows, *column.shape])
        for alias, column in columns.items()
    }


@dataclass
class _Column:
    """The rows of one input, one behind the other; each has this shape."""

    shape: list[int]
    values: list[Any]
    size: int = 0


def _add_row(columns: dict[str, _Column], alias: str, value: Any, types: Mapping[str, int]) -> None:
    if alias not in types:
        raise invalid(f"JSON object: does not have named input: {to_text(alias)}")
    shape, column = _shape_of(alias, value, rows=1), columns.get(alias)
    values = [] if column is None else column.values
    before = len(values)
    _fill(value, 0, shape, types[alias], values)
    size = len(values) - before
    if column is None:
        columns[alias] = _Column(shape, values, size)
    elif column.size != size:
        raise invalid(f"Expecting tensor size: {column.size} but got: {size}")
    elif column.shape != shape:
        raise invalid(f"Expecting shape {_in_words(column.shape)} but got: {_in_words(shape)}")


def _array(alias: str, value: Any, dtype: int) -> np.ndarray[Any, Any]:
    """A dense tensor of nested lists. Raises ServingError."""
    shape, values = _shape_of(alias, value), list[Any]()
    _fill(value, 0, shape, dtype, values)
    return _of(values, dtype).reshape(shape)


def _shape_of(alias: str, value: Any, rows: int = 0) -> list[int]:
    """The shape of nested lists is that of the first elements. Raises ServingError for too many dimensions."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    if len(shape) + rows > MAX_DIMENSIONS:
        raise invalid(f"tensor parsing error: {alias}")
    return shape


def _of(flat: list[Any], dtype: int) -> np.ndarray[Any, Any]:
    """Checked values as an array of the type. Raises ServingError."""
    if dtype in _FLOATS:
        return _floats(flat, dtype)
    if dtype in _INTEGERS:
        return np.array(flat, _INTEGERS[dtype][2]).astype(numpy_type(dtype), copy=False)
    array = np.empty(len(flat), object if dtype == types_pb2.DT_STRING else bool)
    array[:] = flat
    return array


def _floats(flat: list[Any], dtype: int) -> np.ndarray[Any, Any]:
    try:
        doubles = np.array(flat, np.float64)
    except OverflowError as error:
        raise too_big() from error
    if not np.isfinite(doubles).all() and any(type(value) is float and math.isinf(value) for value in flat):
        raise too_big()
    with np.errstate(over="ignore"):  # 1e39 is infinite as a float
        return doubles.astype(numpy_type(dtype), copy=False)


def _fill(value: Any, level: int, shape: list[int], dtype: int, flat: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
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
    if level + 1 == rank and _all_numbers(value, dtype):
        flat.extend(value)
        return
    for element in value:
        _fill(element, level + 1, shape, dtype, flat)


def _all_numbers(values: list[Any], dtype: int) -> bool:
    """Whether a whole list is of numbers that the type takes; false says only that each has to be looked at."""
    if not values:
        return False
    if dtype in _FLOATS:
        return set(map(type, values)) in _NUMBERS
    low, high, _ = _INTEGERS.get(dtype, (0, -1, None))
    return (
        low <= high
        and set(map(type, values)) == _WHOLE_NUMBERS
        and low <= min(values)
        and max(values) <= high
    )


def _scalar(value: Any, dtype: int) -> Any:
    if isinstance(value, tuple):
        if dtype == types_pb2.DT_STRING:
            return _from_base64(value)
        raise _wrong_type(value, dtype)
    if dtype == types_pb2.DT_STRING:
        if isinstance(value, str):
            return to_bytes(value)
    elif dtype == types_pb2.DT_BOOL:
        if isinstance(value, bool):
            return value
    elif dtype in _FLOATS:
        if type(value) in (int, float, Named):
            return value
    elif dtype in _INTEGERS:
        low, high, _ = _INTEGERS[dtype]
        if type(value) is int and low <= value <= high:
            return value
    else:
        raise ServingError(
            StatusCode.UNIMPLEMENTED, f"Conversion of JSON Value: {shown(value)} to type: {type_name(dtype)}"
        )
    raise _wrong_type(value, dtype)


def _wrong_type(value: Any, dtype: int) -> ServingError:
    return invalid(
        f"JSON Value: {shown(value)} Type: {_kind(value)} is not of expected type: {type_name(dtype)}"
    )


def _is_base64(value: Any) -> bool:
    return (
        isinstance(value, tuple) and len(value) == 1 and value[0][0] == "b64" and isinstance(value[0][1], str)
    )


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and not _is_base64(value)


def _from_base64(value: Members) -> bytes:
    """White space counts for nothing; padding may be left out, be `.`, and must be right where it is."""
    if not _is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = value[0][1].translate(_WITHOUT_SPACE)
    digits = text.rstrip("=.")
    padding = -len(digits) % 4
    if padding == 3 or len(text) - len(digits) not in (0, padding):
        raise invalid("Unable to base64 decode")
    try:
        return base64.b64decode(digits + "=" * padding, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    for kind, name in ((tuple, "Object"), (list, "Array"), (str, "String")):
        if isinstance(value, kind):
            return name
    return "Number"


def _in_words(shape: list[int]) -> str:
    return "[" + ",".join(str(size) for size in shape) + "]"
