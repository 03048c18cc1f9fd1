"""PredictionService and ModelService over gRPC."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc

from reshelve.errors import TryAgainError
from reshelve.logs import logger
from reshelve.modelserver.model_api import ModelApi
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.serving_error import ServingError, invalid
from reshelve.protocol.messages import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

# Threads that only say no when every slot is taken; without them the refusal would wait for a slot itself.
_REFUSING_THREADS = 4
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent half of the traffic
]


_LONGEST_DEADLINE = 2**31 - 1  # milliseconds; a day counts the same as none


class Slots:
    """How many requests may run at once; one more is refused, never queued, and counted nowhere.

    One of the threads listens for the next request, as in a gRPC server in C++: it takes none itself.
    """

    def __init__(self, threads: int) -> None:
        self._free = threading.BoundedSemaphore(threads - 1)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a slot. Raises ServingError."""
        if not self._free.acquire(blocking=False):
            raise ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        try:
            yield
        finally:
            self._free.release()


def _answer(slots: Slots, context: grpc.ServicerContext, call: Callable[[], Any]) -> Any:
    """The answer of `call`, or its error as the RPC's status."""
    try:
        with slots.one():
            return call()
    except ServingError as error:
        context.abort(error.code, error.message)
    except Exception as error:  # noqa: BLE001  the caller gets a status, the server lives on
        logger(part="model-server").exception("request failed")
        context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _milliseconds_left(context: grpc.ServicerContext) -> int:
    """Until the caller's deadline; 0 where it has none. Nobody waits for what is worked out after it."""
    left = context.time_remaining()
    return 0 if left is None else min(max(1, int(left * 1000)), _LONGEST_DEADLINE)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; a ranker has no tf.Example signatures, so the others say that they are not here."""

    def __init__(self, api: ModelApi, slots: Slots) -> None:
        self._api, self._slots = api, slots

    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802  the name in the API
        """Run a signature."""

        def call() -> predict_pb2.PredictResponse:
            with self._api.counted(request.model_spec.name, "Predict", "GRPC"):
                return self._api.predict(request, _milliseconds_left(context))

        return _answer(self._slots, context, call)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  the name in the API
        """The signatures of a version."""
        return _answer(self._slots, context, lambda: self._api.metadata(request)[0])

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  the name in the API
        """Not served."""
        _not_here(context, "Classify")

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  the name in the API
        """Not served."""
        _not_here(context, "Regress")

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  the name in the API
        """Not served."""
        _not_here(context, "MultiInference")


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """States of versions, and the replacement of the model list."""

    def __init__(self, api: ModelApi, slots: Slots, admin_on_socket_only: bool) -> None:
        self._api, self._slots, self._on_socket_only = api, slots, admin_on_socket_only

    def GetModelStatus(  # noqa: N802  the name in the API
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> Any:
        """The states of a model's versions."""
        return _answer(self._slots, context, lambda: self._api.status(request))

    def HandleReloadConfigRequest(  # noqa: N802  the name in the API
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> Any:
        """Replace the model list; answers before a new version of a known model is loaded."""

        def call() -> model_management_pb2.ReloadConfigResponse:
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is "
                    "currently supported"
                )
            if self._on_socket_only and not context.peer().startswith("unix:"):
                raise ServingError(
                    grpc.StatusCode.PERMISSION_DENIED, "new model lists are taken on the socket only"
                )
            self._api.core.reload(request.config)
            response = model_management_pb2.ReloadConfigResponse()
            response.status.error_code = 0
            return response

        return _answer(self._slots, context, call)


def _not_here(context: grpc.ServicerContext, name: str) -> NoReturn:
    context.abort(
        grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served by Reshelve's local model server: use Predict"
    )
    raise AssertionError("abort returned")


def start_grpc(api: ModelApi, address: str, options: ServerOptions) -> grpc.Server:
    """A listening server, on a socket too where the options name one. Raises TryAgainError where it cannot listen."""
    slots = Slots(options.grpc_max_threads)
    pool = ThreadPoolExecutor(options.grpc_max_threads + _REFUSING_THREADS, thread_name_prefix="grpc")
    server = grpc.server(pool, options=_CHANNEL_OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(api, slots), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(api, slots, options.admin_on_socket_only), server
    )
    _listen(server, address)
    if options.grpc_socket_path:  # after the address: what another server listens on stays its own
        _listen(server, f"unix:{options.grpc_socket_path}")
    server.start()
    return server


def _listen(server: grpc.Server, address: str) -> None:
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise TryAgainError(f"the model server cannot listen on {address} (gRPC)", str(error)) from error
    if not bound:
        raise TryAgainError(f"the model server cannot listen on {address} (gRPC)")
