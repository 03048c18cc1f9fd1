"""TensorFlow Serving's REST API, and its Prometheus page."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from google.protobuf import json_format
from grpc import StatusCode
from starlette.requests import Request
from starlette.responses import Response

from reshelve.errors import TryAgainError
from reshelve.logs import logger
from reshelve.serving.model_api import ModelApi
from reshelve.serving.protocol import get_model_metadata_pb2, get_model_status_pb2, model_pb2
from reshelve.serving.rest_answers import from_answer
from reshelve.serving.rest_json import parse_body, to_inputs
from reshelve.serving.server_options import ServerOptions
from reshelve.serving.serving_error import ServingError, invalid

METRICS_PATH = "/monitoring/prometheus/metrics"
_PREDICT = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", re.IGNORECASE
)
_STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?", re.IGNORECASE
)
_HTTP_STATUS = {
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
}


class RestApi:
    """One request in, one JSON text out; runs in threads, since TensorFlow blocks."""

    def __init__(self, api: ModelApi, options: ServerOptions) -> None:
        self._api = api
        self._timeout_ms = options.rest_api_timeout_in_ms

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """HTTP status and JSON body."""
        try:
            return 200, self._dispatch(method, path, body)
        except ServingError as error:
            status, message = _HTTP_STATUS.get(error.code, 500), error.message
        except Exception as error:  # noqa: BLE001  the caller gets a status, the server lives on
            logger(part="model-server").exception("request failed")
            status, message = 500, f"{type(error).__name__}: {error}"
        return status, json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "surrogateescape")

    def metrics(self) -> bytes:
        """The Prometheus page."""
        return self._api.metrics.text().encode()

    def _dispatch(self, method: str, path: str, body: bytes) -> bytes:
        if method == "POST" and (match := _PREDICT.fullmatch(path)):
            name, version, label, verb = match.groups()
            with self._api.counted(name, verb.lower(), "REST"):
                return self._predict(_spec(name, version, label), verb, body)
        if method == "GET" and (match := _STATUS.fullmatch(path)):
            name, version, label, metadata = match.groups()
            if not name:
                raise invalid("Missing model name in request.")
            spec = _spec(name, version, label)
            return self._metadata(spec) if metadata else self._status(spec)
        raise invalid(f"Malformed request: {method} {path}")

    def _predict(self, spec: model_pb2.ModelSpec, verb: str, body: bytes) -> bytes:
        if verb.lower() != "predict":
            raise ServingError(
                StatusCode.UNIMPLEMENTED,
                f"{verb} is not served by Reshelve's local model server: use predict",
            )
        document = parse_body(body)
        spec.signature_name = document.get("signature_name", "")
        signature = self._api.signature(spec, spec.signature_name)
        if not signature.inputs:
            raise invalid(f"Failed to get input map for signature: {spec.signature_name or 'DEFAULT'}")
        inputs, row_form = to_inputs(document, signature.inputs)
        _, answer = self._api.run(spec, inputs, [], self._timeout_ms)
        return from_answer(answer, row_form)

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return _json(self._api.status(request)).encode()

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        response, signatures = self._api.metadata(request)
        document = {
            "model_spec": json.loads(_json(response.model_spec)),
            "metadata": {"signature_def": json.loads(_json(signatures))},
        }
        return json.dumps(document, indent=1).encode()


def _spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name)
    if version:
        if int(version) > 2**63 - 1:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if label:
        spec.version_label = label
    return spec


def _json(message: Any) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=1
    )


class RestServer:
    """Uvicorn in a thread of its own."""

    def __init__(self, api: ModelApi, address: str, options: ServerOptions) -> None:
        self.api = api
        self._rest = RestApi(api, options)
        self._pool = ThreadPoolExecutor(options.rest_api_num_threads - 1, thread_name_prefix="rest")
        self._socket = _listen(address)
        config = uvicorn.Config(
            self._handle,
            log_level="warning",
            access_log=False,
            lifespan="off",
            interface="asgi3",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="rest", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what runs, for two seconds at most, and stop."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._socket.close()

    async def _handle(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        path = request.url.path
        if path == METRICS_PATH:
            await Response(self._rest.metrics(), media_type="text/plain")(scope, receive, send)
            return
        if not path.lower().startswith("/v1/"):
            await Response(b"", status_code=404)(scope, receive, send)
            return
        body = await request.body()
        status, content = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._rest.answer, request.method, path, body
        )
        await Response(content, status_code=status, media_type="application/json")(scope, receive, send)


def _listen(address: str) -> socket.socket:
    """A bound socket. Raises TryAgainError where the address is taken."""
    host, _, port = address.rpartition(":")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
    except OSError as error:
        listener.close()
        raise TryAgainError(f"the model server cannot listen on {address} (REST)", str(error)) from error
    return listener
