"""A loaded SavedModel: a session over its graph, and its signatures as checked calls.

A session rather than `tf.saved_model.load`: it is what TensorFlow Serving itself runs, so a half-copied version
loads and then fails at Predict here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from reshelve.modelserver import tensorflow_c
from reshelve.modelserver.runtime import config_pb2, meta_graph_pb2, tensor_pb2
from reshelve.modelserver.saved_model_file import read_meta_graph
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.serving_error import ServingError, failed_precondition, invalid
from reshelve.modelserver.tensors import to_array, type_name

DEFAULT_SIGNATURE = "serving_default"

Arrays = dict[str, np.ndarray[Any, Any]]
_Feeds = dict[str, tuple[Any, int]]


@dataclass(frozen=True)
class PredictOutputs:
    """What one Predict gave: the signature that ran, its outputs by alias and their DataType."""

    signature_name: str
    outputs: dict[str, Any]
    types: dict[str, int]


class Servable:
    """One loaded version. Thread-safe: many requests run at once and share TensorFlow's threads."""

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef, session: tensorflow_c.Session) -> None:
        self.signatures = meta_graph.signature_def
        self._session = session
        self._calls: dict[tuple[str, tuple[str, ...]], _Call] = {}

    @classmethod
    def load(cls, directory: Path, options: ServerOptions) -> Servable:
        """Read, restore and initialise the SavedModel in `directory`. Raises ServingError."""
        meta_graph = read_meta_graph(directory)
        try:
            return cls(meta_graph, tensorflow_c.Session(directory, _session_config(options)))
        except Exception as error:
            raise ServingError.of(error) from error

    def close(self) -> None:
        """Free the graph and its variables; no request may be running."""
        self._calls.clear()
        self._session.close()

    def signature(self, name: str) -> tuple[str, meta_graph_pb2.SignatureDef]:
        """A signature by name, "" meaning the default one. Raises ServingError."""
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise failed_precondition(f'Serving signature key "{name}" not found.')
        return name, self.signatures[name]

    def predict(
        self,
        signature_name: str,
        inputs: Mapping[str, tensor_pb2.TensorProto] | Arrays,
        output_filter: Iterable[str] = (),
        timeout_ms: int = 0,
    ) -> PredictOutputs:
        """Run one signature. Checks what TensorFlow Serving checks, in its order, with its words."""
        name, signature = self.signature(signature_name)
        feeds = _feeds(signature, inputs)
        aliases = _outputs(signature, list(output_filter))
        _check_types(signature, feeds)
        try:
            call = self._call(name, signature, aliases)
            given = [(array, dtype) for array, dtype in feeds.values()]
            found = self._session.run(call.feeds, given, call.fetches, _run_options(timeout_ms))
        except Exception as error:
            raise ServingError.of(error) from error
        values = dict(zip(call.names, found, strict=True))
        return PredictOutputs(
            name,
            {alias: values[signature.outputs[alias].name] for alias in aliases},
            {alias: signature.outputs[alias].dtype for alias in aliases},
        )

    def _call(self, name: str, signature: meta_graph_pb2.SignatureDef, aliases: tuple[str, ...]) -> _Call:
        """Where the feeds (sorted by alias) and the fetches of a signature are in the graph."""
        found = self._calls.get((name, aliases))
        if found is None:
            names = tuple(dict.fromkeys(signature.outputs[alias].name for alias in aliases))
            feeds = self._session.places([signature.inputs[alias].name for alias in sorted(signature.inputs)])
            found = self._calls[name, aliases] = _Call(feeds, self._session.places(names), names)
        return found


@dataclass(frozen=True)
class _Call:
    feeds: Any
    fetches: Any
    names: tuple[str, ...]  # of the fetches


def start_threads(options: ServerOptions) -> None:
    """Have TensorFlow start the threads that all sessions share.

    A thread has the priority of the one that starts it: were the first session made by a load that yields, every
    request would.
    """
    tensorflow_c.start_threads(_session_config(options))


def _session_config(options: ServerOptions) -> bytes:
    config = config_pb2.ConfigProto(
        intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism,
        device_count={"GPU": 0},  # accelerators belong to training
    )
    return config.SerializeToString()


@cache
def _run_options(timeout_ms: int) -> bytes:
    return config_pb2.RunOptions(timeout_in_ms=timeout_ms).SerializeToString()


def _feeds(signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, Any]) -> _Feeds:
    """The inputs by alias, sorted, with their DataType; a missing one from the signature's defaults.

    Raises ServingError.
    """
    expected, sent = set(signature.inputs), set(inputs)
    if len(sent) > len(expected) or (len(sent) < len(expected) and not signature.defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_braced(sent)}) != "
            f"len({_braced(expected)}). Sent extra: {_braced(sent - expected)}. "
            f"Missing but required: {_braced(expected - sent)}."
        )
    feeds: _Feeds = {}
    for alias in sorted(expected):
        value = inputs[alias] if alias in sent else signature.defaults.get(alias)
        if value is None:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and "
                f"no default value provided. Inputs expected to be in the request {_braced(sent)}, or default input "
                f"alias set: {','.join(sorted(signature.defaults))}"
            )
        if isinstance(value, np.ndarray):  # made for this signature
            feeds[alias] = value, signature.inputs[alias].dtype
        else:
            feeds[alias] = to_array(alias, value), value.dtype
    if sent - expected:
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {_braced(sent & expected)}, "
            f"request inputs: {_braced(sent)}"
        )
    return feeds


def _outputs(signature: meta_graph_pb2.SignatureDef, wanted: list[str]) -> tuple[str, ...]:
    for place, alias in enumerate(wanted):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_braced(set(signature.outputs))}."
            )
        if alias in wanted[:place]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    return tuple(wanted) or tuple(sorted(signature.outputs))


def _check_types(signature: meta_graph_pb2.SignatureDef, feeds: _Feeds) -> None:
    """Types are checked, shapes are not: the operations accept a shape or refuse it."""
    for place, (alias, (array, sent)) in enumerate(feeds.items()):
        expected = signature.inputs[alias].dtype
        if sent != expected:
            raise invalid(
                f"Expects arg[{place}] to be {type_name(expected)} but {type_name(sent)} is provided"
            )
        if array is None:
            raise invalid(f"tensor parsing error: {alias}")


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
