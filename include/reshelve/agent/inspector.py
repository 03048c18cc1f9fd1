"""Versions on the disk are verified again: before each load, and whenever a file of one is not as it was.

A server reads a version's files when it loads it, which may be weeks after they were copied; it may also load them by
itself, when it starts. So every round compares what the file system says of the files (number, size, times), and each load
waits until all bytes have been read and compared with the signed manifest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from reshelve.agent.disk import Disk, Stamp
from reshelve.agent.server_plan import Copy, Observed
from reshelve.errors import DataError
from reshelve.logs import logger
from reshelve.processes import yield_to_others

_FRESH_SECONDS = 10.0  # between the verification and the load; all that time the files are as they were


class Inspector:
    """Reads bytes in a thread of its own: a rollback to what is loaded waits for no file."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._pool = ThreadPoolExecutor(1, "inspector", yield_to_others)
        self._under_way: dict[Copy, Future[Stamp]] = {}
        self._served: set[Copy] = set()  # loaded of sound files, and serving at every look since
        self._asked: dict[Copy, float] = {}  # to be loaded: since when
        self._asked_again: set[Copy] = set()  # of these, since the last look

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def server_is_away(self) -> None:
        """Whatever it has when it comes back was loaded anew."""
        self._served.clear()
        self._asked.clear()

    def look(self, observed: Mapping[str, Observed]) -> None:
        """Verify what has changed since it was verified; give up what the server may have loaded of changed files.

        What serves was loaded before the change: it goes on, and its files are copied again.
        """
        self._collect()
        self._asked = {copy: since for copy, since in self._asked.items() if copy in self._asked_again}
        self._asked_again.clear()
        for ranker, versions in list(self._disk.verified.items()):
            available = observed[ranker].available if ranker in observed else frozenset()
            all_sound = self._disk.sound(ranker)
            for version in sorted(versions):
                copy, sound = (ranker, version), version in all_sound
                if version not in available:
                    self._served.discard(copy)
                elif sound:
                    self._served.add(copy)
                if sound:
                    continue
                if copy not in self._served:
                    logger(ranker=ranker, version=version).error(
                        "files changed before they were loaded, copied again"
                    )
                    self._disk.give_up(ranker, version)
                elif not self._disk.is_spoiled(ranker, version):
                    self._begin(copy)

    def ready(self, ranker: str, version: int) -> bool:
        """Whether all bytes of a version were verified a moment ago, or since it is asked for; if not, that begins.

        Whoever is to load it asks in every round: several versions, or large ones, take longer than a moment.
        """
        copy, now = (ranker, version), time.monotonic()
        since = self._asked.setdefault(copy, now)
        self._asked_again.add(copy)
        if version not in self._disk.sound(ranker):
            return False
        verified = self._disk.verified_at(ranker, version)
        if verified > since or now - verified < _FRESH_SECONDS:
            return True
        self._begin(copy)
        return False

    def _begin(self, copy: Copy) -> None:
        if copy not in self._under_way:
            self._under_way[copy] = self._pool.submit(self._disk.verify, *copy)

    def _collect(self) -> None:
        for copy in [copy for copy, future in self._under_way.items() if future.done()]:
            future, (ranker, version) = self._under_way.pop(copy), copy
            try:
                self._disk.found_sound(ranker, version, future.result())
            except (OSError, DataError) as error:
                logger(ranker=ranker, version=version).error(
                    "changed on this disk, copied again", problem=str(error)
                )
                self._disk.found_spoiled(ranker, version)
