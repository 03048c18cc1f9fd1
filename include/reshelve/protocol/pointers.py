"""The agent's and the gateway's view of what should serve: one conditional GET per ranker and look, quiet while S3 is away.

A pointer object that changed says that there is something to look at, and so does every fifth second without one: what is
believed is the log alone, as far as it verifies.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from reshelve.deployments.deployment_log import (
    Pointer,
    VerifiedLog,
    contradicted,
    deployed_rankers,
    parse_pointer,
    pointer_key,
)
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.logs import logger
from reshelve.store.objects import ObjectStore

_LIST_SECONDS = 5.0
_LOG_SECONDS = 5.0  # a pointer object that is kept from being written hides no move for longer
_LONGEST_WAIT = 15.0
_LONGEST_PROBLEM = 300


@dataclass
class Pointers:
    """The newest state of every ranker that was ever read; what was read stays valid while S3 is away.

    `folder`: where it is kept how far each log was followed.
    """

    store: ObjectStore
    folder: Path
    known: dict[str, Pointer] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    away: str | None = None
    complete: bool = False  # whether every pointer that there is was looked at once
    _tags: dict[str, str] = field(default_factory=dict)
    _logs: dict[str, VerifiedLog] = field(default_factory=dict)
    _looked_at: dict[str, float] = field(default_factory=dict)
    _rankers: list[str] = field(default_factory=list)
    _listed_at: float = float("-inf")
    _not_before: float = 0.0
    _wait: float = 0.5

    def refresh(self) -> None:
        """Look once. Never raises for what S3 does: `away` and `damaged` tell."""
        now = time.monotonic()
        if now < self._not_before:
            return
        try:
            if now - self._listed_at > _LIST_SECONDS:
                self._rankers = deployed_rankers(self.store)
                self._listed_at = now
            for ranker in self._rankers:
                self._look_alone(ranker, now)
        except (TryAgainError, ConfigurationError) as error:  # a refusal may be mended while we run
            if self.away is None:
                logger().warning("S3 is away, serving goes on", problem=str(error))
            self.away = error.headline
            self._wait = min(_LONGEST_WAIT, self._wait * 2)
            self._not_before = time.monotonic() + self._wait
            return
        if self.away is not None:
            logger().info("S3 is back")
        self.away, self._wait, self.complete = None, 0.5, True

    def _look_alone(self, ranker: str, now: float) -> None:
        """What one ranker's objects do is that ranker's matter: the others are followed all the same."""
        try:
            self._look(ranker, now)
        except (TryAgainError, ConfigurationError):
            raise  # of the store and the keys, which are everybody's
        except Exception as error:  # noqa: BLE001 - whatever lies in the bucket
            problem = f"its log cannot be read: {type(error).__name__}: {error}"[:_LONGEST_PROBLEM]
            if problem != self.damaged.get(ranker):
                logger(ranker=ranker).exception(
                    "the deployment is damaged, the last good state stays in force", problem=problem
                )
            self.damaged[ranker], self._looked_at[ranker] = problem, now

    def _look(self, ranker: str, now: float) -> None:
        found, changed = self.store.get_if_changed(pointer_key(ranker), self._tags.get(ranker))
        due = now - self._looked_at.get(ranker, float("-inf")) > _LOG_SECONDS
        if not due and (found is None or not changed):
            return
        log = self._logs.setdefault(ranker, VerifiedLog(self.store, ranker, self.folder))
        pointer = log.look()
        if pointer is not None:
            self.known[ranker] = pointer
        problem = log.problem
        if found is not None and changed:
            problem = problem or self._of_object(found.body, log)
            self._tags[ranker] = found.etag
        elif not problem and self.damaged.get(ranker, "").startswith(pointer_key(ranker)):
            problem = self.damaged[ranker]  # of the object, which is as it was
        if problem and problem != self.damaged.get(ranker):
            logger(ranker=ranker).error(
                "the deployment is damaged, the last good state stays in force", problem=problem
            )
        self.damaged.pop(ranker, None)
        if problem:
            self.damaged[ranker] = problem
        self._looked_at[ranker] = now

    def _of_object(self, body: bytes, log: VerifiedLog) -> str:
        try:
            return contradicted(parse_pointer(body, log.ranker), log)
        except DataError as error:
            return error.headline
