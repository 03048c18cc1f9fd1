"""One question to one or more model servers: which of them is asked next, for which version, and for how long.

Predict changes nothing, so it may be asked again. A server that is busy or away passes the question on to the next one
at once; when all were asked, there is a pause with jitter. The deadline bounds everything, and it is the only place
where a call is retried: gRPC has no retry policy here, or the two would multiply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reshelve.errors import TryAgainError
from reshelve.protocol import messages
from reshelve.protocol.busy import pauses
from reshelve.protocol.server_errors import (
    BusyError,
    NothingServesError,
    ServerAwayError,
    TooSlowError,
    VersionFailedError,
)

_LEAST_SECONDS = 0.001  # gRPC takes no deadline that is over


@dataclass(frozen=True)
class Answer:
    """What a version said. `seconds`: how long the try took that was answered; `refusals`: busy servers before it."""

    version: int
    outputs: Mapping[str, NDArray[Any]]
    seconds: float = 0.0
    refusals: int = 0


@dataclass(frozen=True)
class Target:
    """A version by its number, or whichever a label is on."""

    version: int | None = None
    label: str = "stable"


class VersionedRequest:
    """A Predict request, of one version or another."""

    def __init__(self, ranker: str, inputs: Mapping[str, ArrayLike], signature: str) -> None:
        """Raises TypeError where an input is neither text nor a number."""
        self.inputs, self.signature = inputs, signature
        self.message = messages.predict_pb2.PredictRequest()
        self.message.model_spec.name = ranker
        self.message.model_spec.signature_name = signature
        for name, values in inputs.items():
            self.message.inputs[name].CopyFrom(messages.to_tensor(values))

    def of(self, target: Target) -> VersionedRequest:
        """The same question of another version."""
        if target.version is None:
            self.message.model_spec.version_label = target.label
        else:
            self.message.model_spec.version.value = target.version
        return self

    def __str__(self) -> str:
        spec = self.message.model_spec
        asked = spec.version_label if spec.HasField("version_label") else spec.version.value
        return f"{spec.name} {asked}"


class Server(Protocol):
    """Who answers."""

    def once(self, question: VersionedRequest, timeout: float) -> Answer:
        """One try. Raises the errors of `server_errors`."""
        ...


def ask(
    servers: Sequence[Server],
    targets: Sequence[Target],
    question: VersionedRequest,
    timeout: float,
    *,
    absence: float,
    refused: Callable[[], None],
) -> Answer:
    """The first answer within `timeout` seconds. `refused` is told of every try that a busy server refused.

    `servers` are asked in their order, for the first of `targets`; for the next one where those that answer do not have
    it. Where none is there at all, it is waited for `absence` seconds. Raises the error of the last try.
    """
    asking = _Asking(servers, targets, question, timeout, refused)
    patience = min(absence, timeout)
    for wait in pauses():
        found = asking.once_around()
        if isinstance(found, Answer):
            return found
        most = patience if isinstance(found, NothingServesError) else timeout
        if isinstance(found, VersionFailedError) or asking.spent() + wait >= most:
            raise found
        time.sleep(wait)
    raise AssertionError("pauses never end")


class _Asking:
    """One question under way."""

    def __init__(
        self,
        servers: Sequence[Server],
        targets: Sequence[Target],
        question: VersionedRequest,
        timeout: float,
        refused: Callable[[], None],
    ) -> None:
        self._servers, self._targets, self._question = servers, targets, question
        self._timeout, self._refused = timeout, refused
        self._began = time.monotonic()
        self._busy: BusyError | None = None

    def spent(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def once_around(self) -> Answer | TryAgainError:
        """Each server once, for each target while none has it: an answer, or what says most about why there is none."""
        for target in self._targets:
            self._question.of(target)
            found: list[TryAgainError] = []
            for server in self._servers:
                said = self._once(server)
                if isinstance(said, Answer):
                    return said
                found.append(said)
            failed = [error for error in found if isinstance(error, VersionFailedError)]
            absent = [error for error in found if isinstance(error, NothingServesError)]
            if failed or not absent:
                return (failed or found)[-1]
        return absent[-1]

    def _once(self, server: Server) -> Answer | TryAgainError:
        left = max(self._timeout - self.spent(), _LEAST_SECONDS)
        try:
            return server.once(self._question, left)
        except BusyError as error:
            self._busy = error
            self._refused()
            return error
        except (ServerAwayError, NothingServesError, VersionFailedError) as error:
            return error
        except TooSlowError as error:
            if self._busy is not None and left < self._timeout / 2:
                raise self._busy from error  # refused until too little time was left: that is no slowness
            raise


def finite(scores: NDArray[Any]) -> bool:
    """Whether there are scores and all are numbers."""
    return bool(scores.size) and bool(np.isfinite(scores.astype(float)).all())
