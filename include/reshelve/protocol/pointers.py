"""The agent's view of the pointers on S3: one conditional GET per ranker and look, quiet while S3 is away.

A pointer that changed is believed only as far as the deployment log explains it: one that was put back from
yesterday leads to the newest entry, one that nobody logged is damaged.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from reshelve.deployments.deployment_log import Pointer, deployed_rankers, newest, parse_pointer, pointer_key
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.logs import logger
from reshelve.store.objects import ObjectStore

_LIST_SECONDS = 5.0
_LONGEST_WAIT = 15.0


@dataclass
class Pointers:
    """The newest pointer of every ranker that was ever read; what was read stays valid while S3 is away."""

    store: ObjectStore
    known: dict[str, Pointer] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    away: str | None = None
    complete: bool = False  # whether every pointer that there is was looked at once
    _tags: dict[str, str] = field(default_factory=dict)
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
                self._look(ranker)
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

    def _look(self, ranker: str) -> None:
        found, changed = self.store.get_if_changed(pointer_key(ranker), self._tags.get(ranker))
        if found is None or not changed:
            return  # unchanged; or gone, and then the last one read stays in force
        try:
            pointer = newest(self.store, parse_pointer(found.body, ranker))
            known = self.known.get(ranker)
            if known is not None and pointer.sequence < known.sequence:
                raise DataError(
                    f"{pointer_key(ranker)} is older than the one before it",
                    f"{pointer.sequence} after {known.sequence}",
                )
            self.known[ranker] = pointer
            self.damaged.pop(ranker, None)
        except DataError as error:
            logger(ranker=ranker).error(
                "the pointer is damaged, the last good one stays in force", problem=str(error)
            )
            self.damaged[ranker] = error.headline
        self._tags[ranker] = found.etag
