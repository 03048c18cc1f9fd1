"""SavedModels by TensorFlow's C API: loaded, run and freed without holding Python's interpreter.

It is what a C++ server calls, and public, with a promise of stability. TensorFlow's Python session runs without the
interpreter too, but takes graphs from Python and gives their memory back while it holds it: at 90 MB of weights no
request of any version is answered for half a second at a time (decision 0116).

`ctypes.CDLL` lets other threads run during a call; `ctypes.PyDLL`, for what takes less than that would cost, does not.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reshelve.modelserver.load_priority import idle
from reshelve.modelserver.runtime import dtypes

Array = NDArray[Any]

_LIBRARY = "libtensorflow_cc.so.2"
_STRING = 7  # TF_STRING, which is DT_STRING too
_STRING_BYTES = 24  # sizeof(TF_TString)
_SMALL = 0  # a TF_TString whose characters are in itself, after its size
_DEADLINE_EXCEEDED = 4

_P, _S, _N, _I = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int


class _Output(ctypes.Structure):
    _fields_ = [("operation", _P), ("index", _I)]


class _TensorFlowBuffer(ctypes.Structure):
    _fields_ = [("data", _P), ("length", _N), ("deallocator", _P)]


# name → (result, arguments)
_SLOW: Mapping[str, tuple[Any, list[Any]]] = {
    "TF_LoadSessionFromSavedModel": (_P, [_P, _P, _S, ctypes.POINTER(_S), _I, _P, _P, _P]),
    "TF_SessionRun": (None, [_P, _P, _P, _P, _I, _P, _P, _I, _P, _I, _P, _P]),
    "TF_NewSession": (_P, [_P, _P, _P]),
    "TF_CloseSession": (None, [_P, _P]),
    "TF_DeleteSession": (None, [_P, _P]),
    "TF_DeleteGraph": (None, [_P]),
}
_QUICK: Mapping[str, tuple[Any, list[Any]]] = {
    "TF_NewStatus": (_P, []),
    "TF_DeleteStatus": (None, [_P]),
    "TF_GetCode": (_I, [_P]),
    "TF_Message": (_S, [_P]),
    "TF_NewGraph": (_P, []),
    "TF_GraphOperationByName": (_P, [_P, _S]),
    "TF_NewSessionOptions": (_P, []),
    "TF_SetConfig": (None, [_P, _S, _N, _P]),
    "TF_DeleteSessionOptions": (None, [_P]),
    "TF_AllocateTensor": (_P, [_I, ctypes.POINTER(ctypes.c_int64), _I, _N]),
    "TF_DeleteTensor": (None, [_P]),
    "TF_TensorType": (_I, [_P]),
    "TF_NumDims": (_I, [_P]),
    "TF_Dim": (ctypes.c_int64, [_P, _I]),
    "TF_TensorByteSize": (_N, [_P]),
    "TF_TensorData": (_P, [_P]),
    "TF_StringInit": (None, [_P]),
    "TF_StringCopy": (None, [_P, _S, _N]),
    "TF_StringDealloc": (None, [_P]),
    "TF_StringGetDataPointer": (_P, [_P]),
    "TF_StringGetSize": (_N, [_P]),
}


class GraphError(Exception):
    """What TensorFlow said: a canonical code, as gRPC numbers them, and its text."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = code
        self.message = message


@cache
def _library() -> Any:
    """The functions by their names, typed."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("tensorflow is not installed")
    path = str(Path(spec.submodule_search_locations[0]) / _LIBRARY)

    class Functions:
        pass

    for library, functions in ((ctypes.CDLL(path), _SLOW), (ctypes.PyDLL(path), _QUICK)):
        for name, (result, arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(Functions, name.removeprefix("TF_"), staticmethod(function))
    return Functions


class _Status:
    """One call's outcome: `with _Status() as status: call(…, status)` raises GraphError where it failed."""

    def __enter__(self) -> Any:
        self._pointer = _library().NewStatus()
        return self._pointer

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        c = _library()
        code, message = c.GetCode(self._pointer), c.Message(self._pointer)
        c.DeleteStatus(self._pointer)
        if code and kind is None:
            raise GraphError(code, message.decode("utf-8", "replace"))


@contextmanager
def _options(config: bytes) -> Iterator[Any]:
    c = _library()
    options = c.NewSessionOptions()
    try:
        with _Status() as status:
            c.SetConfig(options, config, len(config), status)
        yield options
    finally:
        c.DeleteSessionOptions(options)


def start_threads(config: bytes) -> None:
    """Make and close a session: the first one starts the threads of all. `config`: a serialised ConfigProto."""
    c = _library()
    graph = c.NewGraph()
    with _options(config) as options, _Status() as status:
        session = c.NewSession(graph, options, status)
    with _Status() as status:
        c.DeleteSession(session, status)
    c.DeleteGraph(graph)


class Session:
    """A loaded graph. Threads may share it; `close` when none runs."""

    def __init__(self, directory: Path, config: bytes, tag: str = "serve") -> None:
        """Read, restore and initialise a SavedModel; `config` is a serialised ConfigProto. Raises GraphError."""
        c = _library()
        self._session, self._graph = None, c.NewGraph()
        tags = (_S * 1)(tag.encode())
        try:
            with _options(config) as options, _Status() as status, idle():
                self._session = c.LoadSessionFromSavedModel(
                    options, None, str(directory).encode(), tags, 1, self._graph, None, status
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free everything."""
        c = _library()
        session, graph, self._session, self._graph = self._session, self._graph, None, None
        if session is not None:
            with _Status() as status:
                c.CloseSession(session, status)
            with _Status() as status:
                c.DeleteSession(session, status)
        if graph is not None:
            c.DeleteGraph(graph)

    def places(self, names: Sequence[str]) -> Any:
        """Tensors by their names (`operation:0`), for `run`. Raises GraphError where there is none."""
        found = (_Output * len(names))()
        for place, name in enumerate(names):
            operation, _, index = name.partition(":")
            pointer = _library().GraphOperationByName(self._graph, operation.encode())
            if not pointer:
                raise GraphError(5, f"FeedInputs: unable to find feed output {name}")
            found[place] = _Output(pointer, int(index or 0))
        return found

    def run(
        self, feeds: Any, values: Sequence[tuple[Array, int]], fetches: Any, options: bytes = b""
    ) -> list[Array]:
        """The fetched tensors, for feeds of (array, DataType); strings are object arrays of bytes.

        `feeds`, `fetches`: of `places`; `options`: a serialised RunOptions. Raises GraphError.
        """
        c = _library()
        asked = (_P * len(feeds))()
        answers = (_P * len(fetches))()
        body = ctypes.create_string_buffer(options, len(options))
        buffer = (
            ctypes.byref(_TensorFlowBuffer(ctypes.cast(body, _P), len(options), None)) if options else None
        )
        try:
            for place, (array, dtype) in enumerate(values):
                asked[place] = _to_tensor(array, dtype)
            with _Status() as status, idle():
                c.SessionRun(
                    self._session, buffer, feeds, asked, len(feeds), fetches, answers, len(fetches),
                    None, 0, None, status,
                )  # fmt: skip
            return [_from_tensor(int(answer or 0)) for answer in answers]
        finally:
            for answer in answers:
                if answer:
                    c.DeleteTensor(answer)
            for pointer, (_, dtype) in zip(asked, values, strict=True):
                if pointer:
                    _free(pointer, dtype)


def _to_tensor(array: Array, dtype: int) -> int:
    """A tensor with a copy of the array."""
    c = _library()
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    if dtype != _STRING:
        array = np.asarray(array, order="C")  # np.ascontiguousarray would make a vector of a scalar
        tensor = c.AllocateTensor(dtype, shape, array.ndim, array.nbytes)
        ctypes.memmove(c.TensorData(tensor), array.ctypes.data, array.nbytes)
        return int(tensor)
    tensor = c.AllocateTensor(dtype, shape, array.ndim, array.size * _STRING_BYTES)
    place = c.TensorData(tensor)
    for text in array.ravel().tolist():
        content = text if isinstance(text, bytes) else str(text).encode()
        c.StringInit(place)
        c.StringCopy(place, content, len(content))
        place += _STRING_BYTES
    return int(tensor)


def _free(tensor: int, dtype: int) -> None:
    """Long strings have memory of their own, which whoever wrote them frees."""
    c = _library()
    if dtype == _STRING:
        start = c.TensorData(tensor)
        for place in range(start or 0, (start or 0) + c.TensorByteSize(tensor), _STRING_BYTES):
            c.StringDealloc(place)
    c.DeleteTensor(tensor)


def _from_tensor(tensor: int) -> Array:
    """A copy of the tensor's values."""
    c = _library()
    shape = tuple(c.Dim(tensor, axis) for axis in range(c.NumDims(tensor)))
    dtype, size, start = c.TensorType(tensor), c.TensorByteSize(tensor), c.TensorData(tensor)
    raw = ctypes.string_at(start, size) if size else b""
    if dtype != _STRING:
        numbers = np.frombuffer(bytearray(raw), dtype=dtypes.as_dtype(dtype).as_numpy_dtype)
        return numbers.reshape(shape)
    texts = np.empty(size // _STRING_BYTES, dtype=object)
    for number, place in enumerate(range(0, size, _STRING_BYTES)):
        head = raw[place]
        if head & 3 == _SMALL:
            texts[number] = raw[place + 1 : place + 1 + (head >> 2)]
        else:
            where = start + place
            texts[number] = ctypes.string_at(c.StringGetDataPointer(where), c.StringGetSize(where))
    return texts.reshape(shape)
