"""The administration of a model server over gRPC: what it holds, where its labels point, and a new configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc

from reshelve.agent.placeholder import PLACEHOLDER
from reshelve.agent.server_plan import Observed, VersionState
from reshelve.client.client import BusyError, ServerAwayError, TooSlowError, open_channel
from reshelve.errors import TryAgainError
from reshelve.protocol import messages
from reshelve.protocol.busy import call_when_free, is_busy
from reshelve.protocol.model_config import ModelEntry, to_message

_LABELS = ("stable", "canary")
_LONGEST_PAUSE = 0.02  # few calls, and others wait for what they do
_BUSY_SECONDS = 2.0  # then what is wanted may be something else already
_States = messages.get_model_status_pb2.ModelVersionStatus.State


class ServerRefusedError(TryAgainError):
    """The server lives, and says no. What holds of a configuration that it refused is not known.

    `taken`: it took the list in, and a model that was new to it did not load.
    """

    taken = False


class ServerAdmin:
    """One model server's control surface.

    A call that the server refuses for want of a thread is made again until its time is over. Every method raises
    ServerAwayError where nothing answers, TooSlowError or BusyError where the server lives and has no time.
    """

    def __init__(self, address: str, timeout: float = 5) -> None:
        self.address = address
        self._timeout = timeout
        self._channel = open_channel(address)
        self._models = messages.model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._predictions = messages.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def observe(self, ranker: str) -> Observed:
        """States, labels and load errors of one ranker; empty where the server does not know it."""
        request = messages.get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = ranker
        try:
            answer = self._call(self._models.GetModelStatus, request)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return Observed()
            raise self._typed(error, ranker) from error
        states: dict[int, VersionState] = {}
        failures: dict[int, str] = {}
        for found in answer.model_version_status:
            states[found.version] = VersionState(_States.Name(found.state))
            if states[found.version] is VersionState.END and found.status.error_code:
                failures[found.version] = found.status.error_message or f"code {found.status.error_code}"
        placeholder = states.pop(PLACEHOLDER, None)
        begun, refused = placeholder is VersionState.AVAILABLE, failures.pop(PLACEHOLDER, None) is not None
        if all(state is VersionState.END for state in states.values()):
            return Observed(states, {}, failures, begun, refused)  # no label can point anywhere
        labels = {
            label: version for label in _LABELS if (version := self._labelled(ranker, label)) is not None
        }
        return Observed(states, labels, failures, begun, refused)

    def _labelled(self, ranker: str, label: str) -> int | None:
        """Where a label points. The status call ignores labels; the metadata call resolves them."""
        request = messages.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = ranker
        request.model_spec.version_label = label
        try:
            answer = self._call(self._predictions.GetModelMetadata, request)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
                return None  # no such label, or it points at a version that is gone
            raise self._typed(error, ranker) from error
        return int(answer.model_spec.version.value)

    def reload(
        self,
        entries: Iterable[ModelEntry],
        timeout: float = 60,
        others: Iterable[messages.model_server_config_pb2.ModelConfig] = (),
    ) -> None:
        """Replace the server's whole model list. An OK does not mean that anything is loaded yet: observe.

        It waits on the server while a model that is new to it loads, up to `timeout` seconds here. Raises
        RefusedError with the server's words where it refuses.
        """
        request = messages.model_management_pb2.ReloadConfigRequest(config=to_message(entries, others))
        try:
            answer = call_when_free(
                self._models.HandleReloadConfigRequest,
                request,
                timeout,
                patience=_BUSY_SECONDS,
                longest_pause=_LONGEST_PAUSE,
            )
        except grpc.RpcError as error:
            raise self._typed(error, "a new configuration") from error
        if answer.status.error_code:
            raise self._refused("a new configuration", answer.status.error_message)

    def _call(self, call: Callable[..., Any], request: Any) -> Any:
        return call_when_free(call, request, self._timeout, longest_pause=_LONGEST_PAUSE)

    def _typed(self, error: grpc.RpcError, what: str) -> TryAgainError:
        code, detail = error.code(), str(error.details())
        if is_busy(error):
            return BusyError(f"the model server at {self.address} is busy: it refused {what}", detail)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TooSlowError(f"the model server at {self.address} did not answer in time", what)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return ServerAwayError(
                f"the model server at {self.address} cannot be reached for {what}", f"{code.name}: {detail}"
            )
        return self._refused(what, f"{code.name}: {detail}")

    def _refused(self, what: str, words: str) -> ServerRefusedError:
        error = ServerRefusedError(f"the model server at {self.address} refused {what}", words)
        error.taken = "did not become available" in words
        return error
