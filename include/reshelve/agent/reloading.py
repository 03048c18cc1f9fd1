"""One reload at a time, in a thread of its own: while the server takes it in, the agent goes on looking and reporting.

A reload holds one of the server's threads until every new model has loaded, and all further ones wait behind it with a
thread each. An agent that gives up early and asks again fills the server's threads with its own calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from reshelve.agent.admin import ServerAdmin
from reshelve.errors import TryAgainError
from reshelve.logs import logger
from reshelve.protocol.messages import model_server_config_pb2 as config_pb2
from reshelve.protocol.model_config import ModelEntry

LONGEST_LOAD_SECONDS = 3600.0  # no load takes longer; a server that waits longer waits for ever
_SAY_SECONDS = 30.0


@dataclass(frozen=True)
class ReloadResult:
    """How a reload ended: `error` is None where the server took it."""

    entries: Mapping[str, ModelEntry]
    others: tuple[config_pb2.ModelConfig, ...]
    error: TryAgainError | None


class Reloads:
    """The reload under way, if there is one."""

    def __init__(self, admin: ServerAdmin) -> None:
        self._admin = admin
        self._pool = ThreadPoolExecutor(1, "reload")
        self._under_way: Future[ReloadResult] | None = None
        self._since = self._say_at = 0.0

    @property
    def under_way(self) -> bool:
        """Whether the server has not answered the last one yet."""
        return self._under_way is not None

    def send(self, entries: Mapping[str, ModelEntry], others: Iterable[config_pb2.ModelConfig]) -> None:
        """Begin one. The one before it must have been taken."""
        if self._under_way is not None:
            raise RuntimeError("a reload is under way")
        self._since = time.monotonic()
        self._say_at = self._since + _SAY_SECONDS
        self._under_way = self._pool.submit(self._reload, dict(entries), tuple(others))

    def take(self, patience: float = 0.0) -> ReloadResult | None:
        """The outcome, once; None while there is none. Waits up to `patience` seconds for it."""
        if self._under_way is None:
            return None
        wait([self._under_way], patience)
        if not self._under_way.done():
            if time.monotonic() > self._say_at:
                self._say_at += _SAY_SECONDS
                seconds = round(time.monotonic() - self._since)
                logger(server=self._admin.address).info("the server still takes a reload in", seconds=seconds)
            return None
        outcome, self._under_way = self._under_way.result(), None
        return outcome

    def close(self) -> None:
        """Wait for nothing: close the connection first, which ends the call."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _reload(
        self, entries: Mapping[str, ModelEntry], others: tuple[config_pb2.ModelConfig, ...]
    ) -> ReloadResult:
        try:
            self._admin.reload(entries.values(), LONGEST_LOAD_SECONDS, others)
        except TryAgainError as error:
            return ReloadResult(entries, others, error)
        return ReloadResult(entries, others, None)
