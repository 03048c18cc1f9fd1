"""What a shop calls: answers of the stable version, and of the canary for the share of the sessions that the pointer says.

    with Caller("recommend", ["10.0.0.5:8500"], object_store()) as ranker:
        ranker.predict({"history": ["red mug"]}, session="c81e…")

A session stays where it is while the share grows. A canary never fails a request: what it does not answer, the stable
version does, and the failure is counted against the canary.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reshelve.errors import ConfigurationError, DataError, ReshelveError, TryAgainError
from reshelve.logs import logger
from reshelve.serving.client import Answer, NothingServesError, RankingClient
from reshelve.serving.request_log import RequestLog
from reshelve.serving.traffic import Meter, write_traffic
from reshelve.store.deployments import Pointer, parse_pointer, pointer_key
from reshelve.store.objects import ObjectStore

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
        self.pointer: Pointer | None = None
        self.meter = Meter(name or f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self._clients = [RankingClient(address) for address in servers]
        self._store, self._every = store, every
        self._tag: str | None = None
        self._next = 0
        self._away = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.log: RequestLog | None = None
        if store is not None:
            if log_share:
                self.log = RequestLog(store, ranker, self.meter.client, log_share)
            self._look()
            self._thread = threading.Thread(target=self._run, name=f"pointer of {ranker}", daemon=True)
            self._thread.start()

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Report once more and close the connections."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self.log is not None:
            self.log.close()
        for client in self._clients:
            client.close()

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        session: str,
        signature: str = "serving_default",
        timeout: float = 1.0,
    ) -> Answer:
        """The answer for a session, within `timeout` seconds, second tries included.

        Raises what RankingClient.predict raises: RequestRefusedError for a wrong request, TryAgainError otherwise.
        """
        deadline = time.monotonic() + timeout
        pointer = self.pointer
        if wants_canary(pointer, session):
            try:
                patience = timeout * _CANARY_PATIENCE
                return self._ask(pointer, "canary", inputs, session, signature, patience)
            except ReshelveError as error:
                logger(ranker=self.ranker).warning("the canary did not answer", problem=error.headline)
        return self._stable(pointer, inputs, session, signature, deadline)

    def _stable(
        self,
        pointer: Pointer | None,
        inputs: Mapping[str, ArrayLike],
        session: str,
        signature: str,
        deadline: float,
    ) -> Answer:
        """Ask the stable version; Predict changes nothing, so another server may be asked again."""
        tries = len(self._clients)
        while True:
            tries -= 1
            left = deadline - time.monotonic()
            try:
                return self._ask(pointer, "stable", inputs, session, signature, max(left, 0.001))
            except TryAgainError:
                if tries <= 0 or deadline - time.monotonic() <= 0:
                    raise

    def _ask(
        self,
        pointer: Pointer | None,
        label: str,
        inputs: Mapping[str, ArrayLike],
        session: str,
        signature: str,
        timeout: float,
    ) -> Answer:
        self._next += 1  # round robin; a lost update between threads only repeats a server
        client = self._clients[self._next % len(self._clients)]
        sequence = 0 if pointer is None else pointer.sequence
        started = time.monotonic()
        try:
            answer = client.predict(self.ranker, inputs, label=label, signature=signature, timeout=timeout)
        except ReshelveError as error:
            meant = None if pointer is None else pointer.canary if label == "canary" else pointer.stable
            # A label that is not there (any more) says that the pointer moved, nothing of the version.
            if meant is not None and not (label == "canary" and isinstance(error, NothingServesError)):
                self.meter.add(sequence, meant, None, type(error).__name__)
            raise
        milliseconds = (time.monotonic() - started) * 1000
        text = _text(inputs)
        self.meter.add(sequence, answer.version, milliseconds, text=text, score=_best_score(answer))
        if self.log is not None:
            self.log.offer(
                session=session, label=label, signature=signature, text=text, version=answer.version,
                outputs=answer.outputs, sent=_sent(inputs),
            )  # fmt: skip
        return answer

    def _run(self) -> None:
        while not self._stop.wait(self._every * random.uniform(0.8, 1.2)):
            self._look()
            self._report()
        self._report()

    def _look(self) -> None:
        assert self._store is not None
        try:
            found, changed = self._store.get_if_changed(pointer_key(self.ranker), self._tag)
            if found is not None and changed:
                fresh = parse_pointer(found.body, self.ranker)
                self._tag = found.etag
                if self.pointer is None or fresh.sequence >= self.pointer.sequence:
                    self.pointer = fresh
            self._away = False
        except (TryAgainError, ConfigurationError, DataError) as error:
            if not self._away:
                logger(ranker=self.ranker).warning("the pointer is not read", problem=error.headline)
            self._away = True

    def _report(self) -> None:
        assert self._store is not None
        if self._away:
            return
        try:
            write_traffic(self._store, self.ranker, self.meter.report())
        except (TryAgainError, ConfigurationError) as error:
            logger(ranker=self.ranker).warning("traffic is not reported", problem=error.headline)


def _text(inputs: Mapping[str, ArrayLike]) -> str | None:
    """What the first row asks; None where the signature has no text of ours."""
    for name in ("query", "history"):
        rows = np.asarray(inputs.get(name, ())).ravel()
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
    return float(np.max(found[0] if found.ndim > 1 else found))
