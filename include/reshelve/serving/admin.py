"""The administration of a model server over gRPC: what it holds, where its labels point, and a new configuration."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from reshelve.errors import TryAgainError
from reshelve.serving import protocol
from reshelve.serving.client import open_channel, typed_error
from reshelve.serving.model_config import ModelEntry, to_message
from reshelve.serving.plan import Observed, State

_LABELS = ("stable", "canary")
_States = protocol.get_model_status_pb2.ModelVersionStatus.State


class ServerAdmin:
    """One model server's control surface. Every method raises TryAgainError where the server does not answer."""

    def __init__(self, address: str, timeout: float = 5) -> None:
        self.address = address
        self._timeout = timeout
        self._channel = open_channel(address)
        self._models = protocol.model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._predictions = protocol.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def observe(self, ranker: str) -> Observed:
        """States, labels and load errors of one ranker; empty where the server does not know it."""
        request = protocol.get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = ranker
        try:
            answer = self._models.GetModelStatus(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return Observed()
            raise self._away(error, ranker) from error
        states: dict[int, State] = {}
        failures: dict[int, str] = {}
        for found in answer.model_version_status:
            states[found.version] = State(_States.Name(found.state))
            if states[found.version] is State.END and found.status.error_code:
                failures[found.version] = found.status.error_message or f"code {found.status.error_code}"
        labels = {
            label: version for label in _LABELS if (version := self._labelled(ranker, label)) is not None
        }
        return Observed(states, labels, failures)

    def _labelled(self, ranker: str, label: str) -> int | None:
        """Where a label points. The status call ignores labels; the metadata call resolves them."""
        request = protocol.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = ranker
        request.model_spec.version_label = label
        try:
            answer = self._predictions.GetModelMetadata(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
                return None  # no such label, or it points at a version that is gone
            raise self._away(error, ranker) from error
        return int(answer.model_spec.version.value)

    def reload(self, entries: Iterable[ModelEntry], timeout: float = 10) -> None:
        """Replace the server's whole model list. An OK does not mean that anything is loaded yet: observe.

        Raises TryAgainError with the server's words where it refuses.
        """
        request = protocol.model_management_pb2.ReloadConfigRequest(config=to_message(entries))
        try:
            answer = self._models.HandleReloadConfigRequest(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._away(error, "a new configuration") from error
        if answer.status.error_code:
            raise TryAgainError(
                f"the model server at {self.address} refused a new configuration", answer.status.error_message
            )

    def _away(self, error: grpc.RpcError, what: str) -> TryAgainError:
        found = typed_error(error, self.address, what)
        return found if isinstance(found, TryAgainError) else TryAgainError(found.headline, found.detail)
