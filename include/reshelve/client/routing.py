"""What a shop calls: answers of the stable version, and of the canary for the share of the sessions that the pointer says.

    with Caller("recommend", ["10.0.0.5:8500"], object_store()) as ranker:
        ranker.predict({"history": ["red mug"]}, session="c81e…")

A version is asked by its number, as the pointer names it: when the pointer moves to a version that is loaded, the next
request gets it, whatever labels are on. A session stays where it is while the share grows. A canary never fails a
request: what it does not answer, the stable version does, and the failure is counted against the canary.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reshelve.client.asking import Answer, Target, VersionedRequest, ask
from reshelve.client.client import RankingClient
from reshelve.errors import ConfigurationError, ReshelveError
from reshelve.logs import logger
from reshelve.protocol.server_errors import BusyError, NothingServesError, RequestRefusedError
from reshelve.protocol.traffic import Meter

if TYPE_CHECKING:
    from reshelve.client.following import Follower
    from reshelve.client.request_log import RequestLog
    from reshelve.deployments.pointer import Pointer
    from reshelve.store.objects import ObjectStore

_NOTHING = np.empty(0)
_CANARY_PATIENCE = 0.5  # share of the deadline that a canary gets: the rest is the stable version's


def session_place(session: str, ranker: str, canary: int) -> float:
    """Where a session is in [0, 1): below the share it gets the canary. Every canary has other sessions first."""
    digest = hashlib.sha256(f"{ranker}\0{canary}\0{session}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def wants_canary(pointer: Pointer | None, session: str) -> bool:
    """Whether a session is the canary's."""
    return (
        pointer is not None
        and pointer.canary is not None
        and pointer.share > 0
        and session_place(session, pointer.ranker, pointer.canary) < pointer.share
    )


def meant_version(pointer: Pointer | None, session: str) -> int | None:
    """The version that a session is to get: where a canary does not answer, the stable version does in its place."""
    if pointer is None:
        return None
    return pointer.canary if wants_canary(pointer, session) else pointer.stable


@dataclass
class _Request:
    """One request of a session, on its way from version to version until `ends`."""

    pointer: Pointer | None
    session: str
    question: VersionedRequest
    ends: float
    refusals: int = 0

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.ends - time.monotonic())

    def refused(self) -> None:
        """A busy server did not take it."""
        self.refusals += 1


class Caller:
    """One ranker behind one or more model servers. Threads may share it; close it, or use it in a `with`.

    A thread of its own looks at the pointer and reports what was measured; S3 away changes nothing for callers.
    """

    def __init__(
        self,
        ranker: str,
        servers: Sequence[str],
        store: ObjectStore | None = None,
        *,
        name: str = "",
        every: float = 1.0,
        log_share: float = 0.0,
    ) -> None:
        """`log_share`: share of the sessions whose requests are logged to the store (`request_log`); 0: none."""
        if not servers:
            raise ConfigurationError(f"{ranker}: no model server to ask", "give one gRPC address or more")
        if log_share and store is None:
            raise ConfigurationError(f"{ranker}: a request log needs a store")
        self.ranker = ranker
        self.meter = Meter(name or f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self._clients = [RankingClient(address) for address in servers]
        self._next = 0
        self.log: RequestLog | None = None
        self._follower: Follower | None = None
        if store is not None:  # what knows S3 is imported for who has a store: it loads boto3
            from reshelve.client.following import Follower

            if log_share:
                from reshelve.client.request_log import RequestLog

                self.log = RequestLog(store, ranker, self.meter.client, log_share)
            self._follower = Follower(ranker, store, self.meter, every)

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Report once more and close the connections."""
        if self._follower is not None:
            self._follower.close()
        if self.log is not None:
            self.log.close()
        for client in self._clients:
            client.close()

    @property
    def pointer(self) -> Pointer | None:
        """The newest pointer that was read."""
        return None if self._follower is None else self._follower.pointer

    def ready(self, timeout: float = 1.0) -> bool:
        """Whether the version that should be stable answers, at one server at least: for a health check."""
        target, ends = _stable_targets(self.pointer)[0], time.monotonic() + timeout
        return any(
            client.serves(self.ranker, target, max(0.001, ends - time.monotonic()))
            for client in self._in_turn()
        )

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        session: str,
        signature: str = "serving_default",
        timeout: float = 1.0,
    ) -> Answer:
        """The answer for a session, within `timeout` seconds, second tries included.

        Raises RequestRefusedError where the request fits no version, TryAgainError where no server answered in time.
        """
        question = VersionedRequest(self.ranker, inputs, signature)
        request = _Request(self.pointer, session, question, time.monotonic() + timeout)
        pointer = request.pointer
        rejecting: list[int] = []
        if pointer is not None and pointer.canary is not None and wants_canary(pointer, session):
            try:
                patience = timeout * _CANARY_PATIENCE
                return self._ask(request, "canary", [Target(pointer.canary)], patience, absence=0)
            except RequestRefusedError:
                rejecting.append(pointer.canary)  # its fault or the caller's: the stable version tells
            except ReshelveError as error:
                self._canary_failed(request, pointer.canary, error)
        try:
            answer = self._ask(
                request, "stable", _stable_targets(pointer), request.left, absence=request.left
            )
        except RequestRefusedError as error:
            return self._rejected(request, rejecting, error)
        except ReshelveError as error:
            self._count(request, None if pointer is None else pointer.stable, error=type(error).__name__)
            raise
        for version in rejecting:
            self._count(request, version, error=RequestRefusedError.__name__)
        return answer

    def _canary_failed(self, request: _Request, version: int, error: ReshelveError) -> None:
        logger(ranker=self.ranker).warning("the canary did not answer", problem=error.headline)
        # A busy server, or one that does not have it (any more), says nothing of the version.
        if not isinstance(error, (BusyError, NothingServesError)):
            self._count(request, version, error=type(error).__name__)

    def _rejected(self, request: _Request, rejecting: list[int], error: RequestRefusedError) -> Answer:
        """What comes of a request that the stable version rejects, and the canary too if it is `rejecting`.

        A version whose graph fails says the same as one that is asked something wrong. So the version before is asked:
        where that answers, the stable version has failed, and its answer is better than none. Otherwise it is the caller's
        error and nobody's failure. Raises `error`.
        """
        pointer = request.pointer
        stable = None if pointer is None else pointer.stable
        if pointer is not None and pointer.previous is not None and not rejecting:
            try:
                answer = self._ask(
                    request, "stable", [Target(pointer.previous)], request.left, absence=0, counted=False
                )
            except ReshelveError as other:
                logger(ranker=self.ranker).debug("no version answers it", problem=other.headline)
            else:
                self._count(request, stable, error=RequestRefusedError.__name__)
                return answer
        for version in (*rejecting, stable):
            self._count(request, version, rejected=RequestRefusedError.__name__)
        raise error

    def _ask(
        self,
        request: _Request,
        label: str,
        targets: Sequence[Target],
        timeout: float,
        *,
        absence: float,
        counted: bool = True,
    ) -> Answer:
        """`label`: what the version is, for the request log."""
        started, text = time.monotonic(), _text(request.question.inputs)
        answer = ask(
            self._in_turn(), targets, request.question, timeout, absence=absence, refused=request.refused
        )
        if counted:
            milliseconds = (time.monotonic() - started) * 1000
            self._count(request, answer.version, milliseconds, text=text, score=_best_score(answer))
        if self.log is not None:
            self.log.offer(
                session=request.session, label=label, signature=request.question.signature, text=text,
                version=answer.version, outputs=answer.outputs, sent=_sent(request.question.inputs),
                move=0 if request.pointer is None else request.pointer.sequence,
                meant=meant_version(request.pointer, request.session),
            )  # fmt: skip
        return answer

    def _in_turn(self) -> list[RankingClient]:
        """Every server once, beginning with the next one."""
        self._next = first = (self._next + 1) % len(self._clients)  # a lost update only repeats a server
        return self._clients[first:] + self._clients[:first]

    def _count(
        self, request: _Request, version: int | None, milliseconds: float | None = None, **what: Any
    ) -> None:
        """One request of a version; what refused it before is counted once."""
        if version is None:
            return
        sequence = 0 if request.pointer is None else request.pointer.sequence
        self.meter.add(sequence, version, milliseconds, refusals=request.refusals, **what)
        request.refusals = 0


def _stable_targets(pointer: Pointer | None) -> list[Target]:
    """What to ask for, in this order, while servers do not have it: never nothing where something answers."""
    if pointer is None or pointer.stable is None:
        return [Target()]
    found = [Target(pointer.stable), Target()]
    return found if pointer.previous is None else [*found, Target(pointer.previous)]


def _text(inputs: Mapping[str, ArrayLike]) -> str | None:
    """What the first row asks; None where the signature has no text of ours."""
    for name in ("query", "history"):
        rows = np.asarray(inputs[name]).ravel() if name in inputs else _NOTHING
        if rows.size:
            first = rows[0]
            return first.decode(errors="replace") if isinstance(first, bytes) else str(first)
    return None


def _sent(inputs: Mapping[str, ArrayLike]) -> NDArray[Any] | None:
    """The items that a caller wants scored for one query; None where it names none, or asks several queries at once."""
    queries, items = (np.asarray(inputs.get(name, ())).ravel() for name in ("query", "item"))
    return items if items.size and len(set(queries.tolist())) == 1 else None


def _best_score(answer: Answer) -> float | None:
    """The highest score of the first row; of a pair's candidates, the highest of all."""
    found = answer.outputs.get("score")
    if found is None or not found.size or found.dtype.kind not in "fiu":
        return None
    return float((found[0] if found.ndim > 1 else found).max())
