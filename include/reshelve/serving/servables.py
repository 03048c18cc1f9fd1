"""A loaded SavedModel: a session over its graph, and its signatures as checked callables.

A session rather than `tf.saved_model.load`: it is what TensorFlow Serving itself runs (so a half-copied version
loads and then fails at Predict here too), and its callable costs a quarter of a concrete function's call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reshelve.serving.runtime import (
    Graph,
    Session,
    config_pb2,
    dtypes,
    import_graph_def,
    meta_graph_pb2,
    tensor_pb2,
)
from reshelve.serving.saved_model_file import read_serving_graph
from reshelve.serving.server_options import ServerOptions
from reshelve.serving.serving_error import ServingError, failed_precondition, invalid
from reshelve.serving.tensors import to_array, type_name

DEFAULT_SIGNATURE = "serving_default"
_INIT_OP = "__saved_model_init_op"

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Answer:
    """What one Predict gave: the signature that ran, its outputs by alias and their DataType."""

    signature_name: str
    outputs: dict[str, Any]
    types: dict[str, int]


class Servable:
    """One loaded version. Thread-safe: many requests run at once and share TensorFlow's threads."""

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef, session: Any) -> None:
        self.signatures = meta_graph.signature_def
        self._session = session
        self._callables: dict[tuple[str, tuple[str, ...], int], Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, directory: Path, options: ServerOptions) -> Servable:
        """Read, restore and initialise the SavedModel in `directory`. Raises ServingError."""
        meta_graph = read_serving_graph(directory)
        graph = Graph()
        session = Session(graph=graph, config=_session_config(options))
        try:
            with graph.as_default():
                import_graph_def(meta_graph.graph_def, name="")
            _restore(session, meta_graph, directory)
        except Exception as error:
            session.close()
            raise ServingError.of(error) from error
        meta_graph.ClearField("graph_def")  # the session has its own copy
        return cls(meta_graph, session)

    def close(self) -> None:
        """Free the graph and its variables; no request may be running."""
        self._callables.clear()
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
    ) -> Answer:
        """Run one signature. Checks what TensorFlow Serving checks, in its order, with its words."""
        name, signature = self.signature(signature_name)
        feeds = _feeds(signature, inputs)
        aliases = _outputs(signature, list(output_filter))
        _check_types(signature, feeds)
        call, fetches = self._callable(name, signature, aliases, timeout_ms)
        try:
            values = dict(zip(fetches, call(*feeds.values()), strict=True))
        except Exception as error:
            raise ServingError.of(error) from error
        return Answer(
            name,
            {alias: values[signature.outputs[alias].name] for alias in aliases},
            {alias: signature.outputs[alias].dtype for alias in aliases},
        )

    def _callable(
        self, name: str, signature: meta_graph_pb2.SignatureDef, aliases: tuple[str, ...], timeout_ms: int
    ) -> tuple[Any, list[str]]:
        key = (name, aliases, timeout_ms)
        made = self._callables.get(key)
        if made is None:
            with self._lock:
                fetches = list(dict.fromkeys(signature.outputs[alias].name for alias in aliases))
                feeds = [signature.inputs[alias].name for alias in sorted(signature.inputs)]
                made = (_callable(self._session, feeds, fetches, timeout_ms=timeout_ms), fetches)
                self._callables[key] = made
        return made


def _session_config(options: ServerOptions) -> config_pb2.ConfigProto:
    return config_pb2.ConfigProto(
        intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism,
        device_count={"GPU": 0},  # accelerators belong to training
    )


def _callable(
    session: Any, feeds: list[str], fetches: list[str], target: str = "", timeout_ms: int = 0
) -> Any:
    """A function from feeds (in order) to fetches (in order), without `Session.run`'s work in Python."""
    options = config_pb2.CallableOptions(feed=feeds, fetch=fetches, target=[target] if target else [])
    options.run_options.timeout_in_ms = timeout_ms
    try:
        return session._make_callable_from_options(options)
    except Exception as error:
        raise ServingError.of(error) from error


def _restore(session: Any, meta_graph: meta_graph_pb2.MetaGraphDef, directory: Path) -> None:
    """Restore the variables and run the initialiser, as TensorFlow's C++ loader does.

    No `variables.index` means a model without variables there, so it does here.
    """
    assets = {
        asset.tensor_info.name: str(directory / "assets" / asset.filename)
        for asset in meta_graph.asset_file_def
    }
    saver = meta_graph.saver_def
    if saver.restore_op_name and (directory / "variables" / "variables.index").is_file():
        feeds = {saver.filename_tensor_name: str(directory / "variables" / "variables"), **assets}
        _run_target(session, feeds, saver.restore_op_name)
    initialiser = _initialiser(meta_graph)
    if initialiser:
        _run_target(session, assets, initialiser)


def _run_target(session: Any, feeds: dict[str, str], target: str) -> None:
    run = _callable(session, list(feeds), [], target)
    run(*(np.array(value.encode(), dtype=object) for value in feeds.values()))


def _initialiser(meta_graph: meta_graph_pb2.MetaGraphDef) -> str:
    if _INIT_OP in meta_graph.signature_def:
        return str(meta_graph.signature_def[_INIT_OP].outputs[_INIT_OP].name).split(":")[0]
    for key in ("saved_model_main_op", "legacy_init_op"):
        names = meta_graph.collection_def[key].node_list.value if key in meta_graph.collection_def else []
        if names:
            return str(names[0])
    return ""


def _feeds(signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, Any]) -> Arrays:
    """The inputs as arrays by alias, sorted; a missing one from the signature's defaults. Raises ServingError."""
    expected, sent = set(signature.inputs), set(inputs)
    if len(sent) > len(expected) or (len(sent) < len(expected) and not signature.defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_braced(sent)}) != "
            f"len({_braced(expected)}). Sent extra: {_braced(sent - expected)}. "
            f"Missing but required: {_braced(expected - sent)}."
        )
    arrays: Arrays = {}
    for alias in sorted(expected):
        value = inputs[alias] if alias in sent else signature.defaults.get(alias)
        if value is None:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and "
                f"no default value provided. Inputs expected to be in the request {_braced(sent)}, or default input "
                f"alias set: {','.join(sorted(signature.defaults))}"
            )
        arrays[alias] = value if isinstance(value, np.ndarray) else to_array(alias, value)
    if sent - expected:
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {_braced(sent & expected)}, "
            f"request inputs: {_braced(sent)}"
        )
    return arrays


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


def _check_types(signature: meta_graph_pb2.SignatureDef, feeds: Arrays) -> None:
    """Types are checked, shapes are not: the operations accept a shape or refuse it."""
    for place, (alias, array) in enumerate(feeds.items()):
        expected = signature.inputs[alias].dtype
        sent = dtypes.as_dtype(array.dtype).as_datatype_enum
        if sent != expected:
            raise invalid(
                f"Expects arg[{place}] to be {type_name(expected)} but {type_name(sent)} is provided"
            )


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
