"""Ask a model server (TensorFlow Serving's gRPC API) for an answer: deadlines, safe retries, errors with a type."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType

import grpc
from numpy.typing import ArrayLike

from reshelve.client.asking import Answer, Target, VersionedRequest, ask, finite
from reshelve.protocol import messages
from reshelve.protocol.busy import call_when_free
from reshelve.protocol.server_errors import (
    BusyError,
    NothingServesError,
    RequestRefusedError,
    ServerAwayError,
    TooSlowError,
    VersionFailedError,
    typed_error,
)

__all__ = [
    "Answer",
    "BusyError",
    "NothingServesError",
    "RankingClient",
    "RequestRefusedError",
    "ServerAwayError",
    "TooSlowError",
    "VersionFailedError",
    "finite",
    "open_channel",
    "serves",
    "typed_error",
]

_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),  # gRPC's own 120 s would hide a server that is long back
    ("grpc.min_reconnect_backoff_ms", 1000),  # and its 20 s for a connection one that drops packets
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
_ABSENCE_SECONDS = 1.0  # for so long after it listens a server may not know its labels yet


def open_channel(address: str) -> grpc.Channel:
    """A channel that comes back quickly when the server does."""
    return grpc.insecure_channel(address, options=_OPTIONS)


class RankingClient:
    """One model server. Threads may share it; close it, or use it in a `with`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = open_channel(address)
        self._predictions = messages.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

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
        absence: float = _ABSENCE_SECONDS,
    ) -> Answer:
        """The answer of the version behind `label`, or of `version`, within `timeout` seconds.

        A server that is busy or away is asked again until then, a version or label that is not there for `absence`
        seconds. Raises NothingServesError, BusyError, ServerAwayError or TooSlowError when the time is over,
        RequestRefusedError and VersionFailedError at once.
        """
        refusals: list[None] = []
        answer = ask(
            [self],
            [Target(version, label)],
            VersionedRequest(ranker, inputs, signature),
            timeout,
            absence=absence,
            refused=lambda: refusals.append(None),
        )
        return replace(answer, refusals=len(refusals))

    def once(self, question: VersionedRequest, timeout: float) -> Answer:
        """One try. Raises the errors of `server_errors`."""
        began = time.monotonic()
        try:
            answer = self._predictions.Predict(question.message, timeout=timeout)
        except grpc.RpcError as error:
            raise typed_error(error, self.address, str(question)) from error
        seconds = time.monotonic() - began
        outputs = {name: messages.from_tensor(tensor) for name, tensor in answer.outputs.items()}
        return Answer(int(answer.model_spec.version.value), outputs, seconds)

    def serves(self, ranker: str, target: Target, timeout: float) -> bool:
        """Whether a version answers: its signatures are asked for, nothing is computed. A busy server is asked again."""
        request = messages.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = ranker
        if target.version is None:
            request.model_spec.version_label = target.label
        else:
            request.model_spec.version.value = target.version
        try:
            call_when_free(self._predictions.GetModelMetadata, request, timeout)
        except grpc.RpcError:
            return False
        return True


def serves(
    address: str, ranker: str, version: int | None = None, label: str | None = None, timeout: float = 5
) -> bool:
    """Whether the server at `address` answers for `version`, or for what `label` (else `stable`) is on.

    An open port says less: right after its start a server may not know its labels yet. False also where it is away,
    or refused for `timeout` seconds.
    """
    with RankingClient(address) as client:
        return client.serves(ranker, Target(version, label or "stable"), timeout)
