"""Ask a model server (TensorFlow Serving's gRPC API) for an answer: deadlines, safe retries, errors with a type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from numpy.typing import ArrayLike, NDArray

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.serving import protocol
from reshelve.serving.busy import is_busy

# Predict changes nothing, so asking again is safe; only UNAVAILABLE says that the server never began.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_RETRIES)),
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),  # gRPC's own 120 s would hide a server that is long back
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)


class ServerAwayError(TryAgainError):
    """Nothing answers at the address."""


class BusyError(TryAgainError):
    """The server lives and refused the request until its deadline: all its threads were taken."""


class TooSlowError(TryAgainError):
    """The server did not answer within the deadline."""


class NothingServesError(TryAgainError):
    """The server answers, but has not loaded this model, version or label."""


class RequestRefusedError(ConfigurationError):
    """The server says that the request does not fit the model."""


@dataclass(frozen=True)
class Answer:
    """What a version said."""

    version: int
    outputs: Mapping[str, NDArray[Any]]


def open_channel(address: str) -> grpc.Channel:
    """A channel that comes back quickly when the server does."""
    return grpc.insecure_channel(address, options=_OPTIONS)


def typed_error(error: grpc.RpcError, address: str, what: str) -> TryAgainError | ConfigurationError:
    """Our error for gRPC's."""
    code, detail = error.code(), str(error.details())
    if is_busy(error):
        return BusyError(f"the model server at {address} is busy: it refused {what}", detail)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooSlowError(f"the model server at {address} did not answer in time", what)
    if code is grpc.StatusCode.NOT_FOUND or detail.startswith("Unrecognized servable version label"):
        return NothingServesError(f"the model server at {address} does not serve {what}", detail)
    if code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # a message over the limit
    ):
        return RequestRefusedError(f"the model server at {address} refused the request for {what}", detail)
    return ServerAwayError(f"the model server at {address} is not there for {what}", f"{code.name}: {detail}")


class RankingClient:
    """One model server. Threads may share it; close it, or use it in a `with`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = open_channel(address)
        self._predictions = protocol.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __enter__(self) -> RankingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def predict(
        self,
        ranker: str,
        inputs: Mapping[str, ArrayLike],
        *,
        label: str = "stable",
        version: int | None = None,
        signature: str = "serving_default",
        timeout: float = 10,
    ) -> Answer:
        """The answer of the version behind `label`, or of `version`.

        Raises NothingServesError, RequestRefusedError, TooSlowError (after `timeout` seconds, retries included)
        or ServerAwayError.
        """
        request = protocol.predict_pb2.PredictRequest()
        request.model_spec.name = ranker
        request.model_spec.signature_name = signature
        if version is None:
            request.model_spec.version_label = label
        else:
            request.model_spec.version.value = version
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(protocol.to_tensor(values))
        try:
            answer = self._predictions.Predict(request, timeout=timeout)
        except grpc.RpcError as error:
            what = f"{ranker} {label if version is None else version}"
            raise typed_error(error, self.address, what) from error
        outputs = {name: protocol.from_tensor(tensor) for name, tensor in answer.outputs.items()}
        return Answer(int(answer.model_spec.version.value), outputs)


def finite(scores: NDArray[Any]) -> bool:
    """Whether there are scores and all are numbers."""
    return bool(scores.size) and bool(np.isfinite(scores.astype(float)).all())
