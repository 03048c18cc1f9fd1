"""Copies versions in a thread of its own: a rollback never waits behind the download of a large version."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from reshelve.agent.disk import Disk
from reshelve.errors import DataError, ReshelveError
from reshelve.logs import logger
from reshelve.processes import yield_to_others
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

Copy = tuple[str, int]  # ranker, version
_LONGEST_WAIT = 60.0


@dataclass
class _Failure:
    message: str
    lasting: bool  # the bytes on S3 are bad: trying again will not mend them
    times: int
    not_before: float


@dataclass
class Copier:
    """One copy at a time; a copy that failed is tried again after 1, 2, 4 … 60 s while it is wanted."""

    store: ObjectStore
    disk: Disk
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "copier", yield_to_others)
    )
    _under_way: dict[Copy, Future[None]] = field(default_factory=dict)
    _failures: dict[Copy, _Failure] = field(default_factory=dict)

    def want(self, ranker: str, versions: list[int]) -> None:
        """Start copies of wanted versions that are missing, or whose files were changed; forget failures of those no longer wanted."""
        self._collect()
        for copy in [c for c in self._failures if c[0] == ranker and c[1] not in versions]:
            del self._failures[copy]
        for version in versions:
            copy = (ranker, version)
            failure = self._failures.get(copy)
            waits = failure is not None and time.monotonic() < failure.not_before
            wanting = version not in self.disk.of(ranker) or self.disk.is_spoiled(ranker, version)
            if wanting and copy not in self._under_way and not waits:
                self._under_way[copy] = self._pool.submit(self._copy, ranker, version)

    def busy_with(self, ranker: str) -> frozenset[int]:
        """Versions being copied, or waiting for their turn."""
        return frozenset(version for name, version in self._under_way if name == ranker)

    def failures(self, ranker: str) -> dict[int, str]:
        """Version → why its bytes can never serve."""
        return {v: f.message for (name, v), f in self._failures.items() if name == ranker and f.lasting}

    def troubles(self, ranker: str) -> list[str]:
        """What hinders copies for now (a full disk, S3 away), and what has to be copied again."""
        changed = [v for v in sorted(self.disk.of(ranker)) if self.disk.is_spoiled(ranker, v)]
        found = [f.message for (name, _), f in self._failures.items() if name == ranker and not f.lasting]
        return [
            *found,
            *(f"version {version} was changed on this disk, and is copied again" for version in changed),
        ]

    def close(self) -> None:
        """Start nothing more; the copy under way is not waited for (it is invisible until it is whole)."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _copy(self, ranker: str, version: int) -> None:
        started = time.monotonic()
        logger(ranker=ranker, version=version).info("copying")
        self.disk.copy(self.store, ranker, version, self._rate())
        logger(ranker=ranker, version=version).info(
            "copied and verified", seconds=round(time.monotonic() - started, 1)
        )

    def _rate(self) -> int | None:
        """Bytes a second at most. A first version has nobody's requests to stand back for."""
        if not any(self.disk.verified.values()):
            return None
        return int(settings().copy_megabytes_per_second * 1_000_000) or None

    def _collect(self) -> None:
        for copy in [c for c, future in self._under_way.items() if future.done()]:
            error = self._under_way.pop(copy).exception()
            if error is None:
                self._failures.pop(copy, None)
                continue
            if not isinstance(error, Exception):  # the process is to end
                raise error
            times = self._failures[copy].times + 1 if copy in self._failures else 1
            wait = min(_LONGEST_WAIT, 2.0 ** (times - 1))
            message = error.headline if isinstance(error, ReshelveError) else f"copying failed: {error!r}"
            self._failures[copy] = _Failure(
                message, isinstance(error, DataError), times, time.monotonic() + wait
            )
            logger(ranker=copy[0], version=copy[1]).error(
                "not copied", problem=str(error), again_in_seconds=wait
            )
