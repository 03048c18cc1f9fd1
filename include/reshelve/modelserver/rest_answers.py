"""Predict answers as JSON: `predictions` for row form, `outputs` for columnar form, as TensorFlow Serving writes them."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from reshelve.modelserver.runtime import types_pb2
from reshelve.modelserver.servables import PredictOutputs
from reshelve.modelserver.serving_error import invalid
from reshelve.modelserver.tensors import numpy_type, type_name

_WHOLE = (
    types_pb2.DT_BOOL, types_pb2.DT_INT64, types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_INT8,
    types_pb2.DT_UINT64, types_pb2.DT_UINT32, types_pb2.DT_UINT8,
)  # fmt: skip
_DIGITS = {types_pb2.DT_FLOAT: 9, types_pb2.DT_DOUBLE: 17}


def from_answer(answer: PredictOutputs, row_form: bool) -> bytes:
    """`{"predictions": …}` for row form, `{"outputs": …}` for columnar form. Raises ServingError."""
    arrays = {
        alias: np.asarray(value, dtype=_held(answer.types[alias])) for alias, value in answer.outputs.items()
    }
    texts = {alias: _texts(alias, array, answer.types[alias], row_form) for alias, array in arrays.items()}
    if not row_form:
        content = (
            "".join(texts[next(iter(texts))])
            if len(texts) == 1
            else _object({k: v[0] for k, v in texts.items()})
        )
        return _document("outputs", content)
    size: int | None = None
    for alias, array in arrays.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        if size is not None and array.shape[0] != size:
            raise invalid(
                f"Tensor name: {alias} has inconsistent batch size: {array.shape[0]} expecting: {size}"
            )
        size = array.shape[0]
    single = next(iter(texts.values())) if len(texts) == 1 else None
    rows = single or [_object({alias: texts[alias][row] for alias in texts}) for row in range(size or 0)]
    return _document("predictions", "[" + ", ".join(rows) + "]")


def _held(dtype: int) -> Any:
    return object if dtype == types_pb2.DT_STRING else None


def _texts(alias: str, array: np.ndarray[Any, Any], dtype: int, by_row: bool) -> list[str]:
    """The JSON of each row, or of the whole as the only element."""
    if by_row and array.ndim:
        return [_text(alias, row, dtype) for row in array]
    return [_text(alias, array, dtype)]


def _text(alias: str, value: Any, dtype: int) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return "[" + ", ".join(_text(alias, element, dtype) for element in value) + "]"
    scalar = value.item() if isinstance(value, np.ndarray | np.generic) else value
    if dtype in _DIGITS:
        return _decimal(scalar, dtype)
    if isinstance(scalar, bytes):
        if alias.endswith("_bytes"):
            return _object({"b64": json.dumps(base64.b64encode(scalar).decode())})
        return json.dumps(scalar.decode("utf-8", "surrogateescape"), ensure_ascii=False)
    if dtype in _WHOLE:
        return json.dumps(scalar)
    raise invalid(f"Failed to write JSON value for tensor type: {type_name(dtype)}")


def _decimal(value: float, dtype: int) -> str:
    """The shortest of six or all digits that reads back as the same number; whole numbers keep their `.0`."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    text = f"{value:.6g}"
    if numpy_type(dtype)(float(text)) != value:
        text = f"{value:.{_DIGITS[dtype]}g}"
    return text if "." in text or "e" in text else f"{text}.0"


def _object(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in members.items()) + "}"


def _document(key: str, content: str) -> bytes:
    return f'{{\n    "{key}": {content}\n}}'.encode("utf-8", "surrogateescape")
