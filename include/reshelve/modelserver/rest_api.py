"""TensorFlow Serving's REST API: what a method, a path and a body come to."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf import json_format
from grpc import StatusCode

from reshelve.logs import logger
from reshelve.modelserver.model_api import ModelApi
from reshelve.modelserver.rest_answers import from_answer
from reshelve.modelserver.rest_json import parse_body, signature_name, to_inputs
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.serving_error import ServingError, failed_precondition, invalid
from reshelve.protocol.messages import get_model_metadata_pb2, get_model_status_pb2, model_pb2

# What follows `?` belongs to the path here: with a query none of them matches.
_PREDICT = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?",
    re.IGNORECASE | re.ASCII,
)
_LARGEST_VERSION = 2**63 - 1
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


@dataclass(frozen=True)
class _Asked:
    """What a path names. `verb` is that of a POST, "metadata" or "" of a GET; None where the path is none of ours."""

    spec: model_pb2.ModelSpec
    verb: str | None = None


class _SilentError(ServingError):
    """A version number that is none: refused without a word."""


class RestApi:
    """One request in, one JSON text out; runs in threads, since TensorFlow blocks."""

    def __init__(self, api: ModelApi, options: ServerOptions) -> None:
        self._api = api
        self._timeout_ms = options.rest_api_timeout_in_ms

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """HTTP status and JSON body; `path` with its query, as it came."""
        try:
            asked = _parse(method, path)
            with self._api.counted(
                asked.spec.name, asked.verb if method == "POST" and asked.verb else "", "REST"
            ):
                return 200, self._dispatch(method, path, asked, body)
        except _SilentError as error:
            return _HTTP_STATUS[error.code], b""
        except ServingError as error:
            status, message = _HTTP_STATUS.get(error.code, 500), error.message
        except Exception as error:  # noqa: BLE001  the caller gets a status, the server lives on
            logger(part="model-server").exception("request failed")
            status, message = 500, f"{type(error).__name__}: {error}"
        return status, _encoded(json.dumps({"error": message}, ensure_ascii=False))

    def preflight(self, origin: str) -> int:
        """The HTTP status for OPTIONS, whose answer has no body: a browser asks so before it sends."""
        try:
            with self._api.counted("", "", "REST"):
                if not re.search("https?://", origin):
                    raise failed_precondition("Origin header is missing in CORS preflight")
        except ServingError as error:
            return _HTTP_STATUS[error.code]
        return 200

    def metrics(self) -> bytes:
        """The Prometheus page."""
        return self._api.metrics.text().encode()

    def _dispatch(self, method: str, path: str, asked: _Asked, body: bytes) -> bytes:
        if method == "POST" and asked.verb == "predict":
            return self._predict(asked.spec, body)
        if method == "POST" and asked.verb in ("classify", "regress"):
            raise ServingError(
                StatusCode.UNIMPLEMENTED,
                f"{asked.verb} is not served by Reshelve's local model server: use predict",
            )
        if method == "GET" and asked.verb is not None:
            if not asked.spec.name:
                raise invalid("Missing model name in request.")
            return self._metadata(asked.spec) if asked.verb == "metadata" else self._status(asked.spec)
        raise invalid(f"Malformed request: {method} {path}")

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        document = parse_body(body)
        spec.signature_name = signature_name(document)
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


def _parse(method: str, path: str) -> _Asked:
    """What the path names, its parts decoded. Raises _SilentError."""
    match = {"POST": _PREDICT, "GET": _STATUS}[method].fullmatch(path) if method in ("POST", "GET") else None
    spec = model_pb2.ModelSpec()
    if match is None:
        return _Asked(spec)
    name, version, label, verb = match.groups()
    if name:
        spec.name = _decoded(name)
    if version:
        digits = version.lstrip("0") or "0"
        if len(digits) > len(str(_LARGEST_VERSION)) or int(digits) > _LARGEST_VERSION:
            raise _SilentError(StatusCode.INVALID_ARGUMENT, "Failed to convert version to numeric.")
        spec.version.value = int(digits)
    if label:
        spec.version_label = _decoded(label)
    return _Asked(spec, verb or "")


def _decoded(part: str) -> str:
    """A name or a label; bytes that are no UTF-8 become U+FFFD, which no model's name has."""
    return unquote_to_bytes(part).decode("utf-8", "replace") if "%" in part else part


def _encoded(text: str) -> bytes:
    """Bytes of a body that are no UTF-8 come back as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _json(message: Any) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=1
    )
