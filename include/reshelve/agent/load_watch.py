"""Which loads are under way on one server, how they ended, and which version is to blame where the server ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from reshelve.agent.loads import Loads
from reshelve.agent.server_plan import Copy, Observed, VersionState, choose_loads, missing
from reshelve.deployments.deployment_log import Pointer
from reshelve.deployments.release_table import ReleaseState
from reshelve.logs import logger

_RETRY_LOAD_SECONDS = 60.0
_UNSEEN_SECONDS = 5.0  # a server lists a version that it was told of within a second


class LoadWatch:
    """Fed with every look at the server; `records` is what outlives this process."""

    def __init__(self, records: Loads) -> None:
        self.records = records
        self._told: dict[Copy, float] = {}  # when the server was told of a version that has not answered yet
        self._inherited: set[Copy] = set()  # told by an earlier agent
        self._loading: set[Copy] = set()  # at the last look
        self._last: list[Copy] = []
        self._failed: dict[Copy, float] = {}
        self._away_at = float("-inf")

    def start(self, rankers: list[str]) -> None:
        """Go on from what an earlier agent wrote down."""
        self.records.start(rankers)
        self._told = {copy: time.monotonic() for copy in self.records.under_way()}
        self._inherited = set(self._told)

    def told(self, ranker: str) -> frozenset[int]:
        """Versions that the server was told of and that it has not ended with."""
        return frozenset(version for name, version in self._told if name == ranker)

    def begin(self, copies: Iterable[Copy]) -> None:
        """The server is about to be told of these. Raises OSError where that cannot be written down."""
        self._last = []
        for copy in copies:
            self.records.begin(*copy)
            self._last.append(copy)
            self._told[copy] = time.monotonic()
            self._inherited.discard(copy)
            self._failed.pop(copy, None)

    def refused(self) -> None:
        """The server would not hear of the last ones, and lives."""
        for copy in self._last:
            self.records.take_back(*copy)
            self._told.pop(copy, None)
        self._last = []

    def server_is_away(self) -> None:
        """Nothing answers at the server's address."""
        self._away_at = time.monotonic()

    def learn(
        self, observed: Mapping[str, Observed], pointers: Mapping[str, Pointer], reload_under_way: bool
    ) -> None:
        """What became of the loads. `reload_under_way`: the server may not have taken in yet what it was told."""
        for ranker, pointer in pointers.items():
            # Only an offer leads to LOADING. Taken back and offered again between two looks, it was never seen unwanted.
            if pointer.state is ReleaseState.LOADING and pointer.canary is not None:
                self.records.offered(ranker, pointer.canary, pointer.sequence)
        lost = []
        for (ranker, version), since in list(self._told.items()):
            seen = observed.get(ranker)
            state = None if seen is None else seen.states.get(version)
            if seen is None or state in (VersionState.START, VersionState.LOADING):
                continue
            if state is VersionState.END and version not in seen.failures and self._is_fresh(since):
                continue  # how it ended before it was told of anew
            if state is None:
                if self._away_at >= since:
                    lost.append((ranker, version))
                    continue
                if reload_under_way or self._is_fresh(since):
                    continue
                if (
                    self.records.of(ranker, version).begun > 1
                ):  # twice begun, never ended: whoever saw it is gone too
                    lost.append((ranker, version))
                    continue
            self._told.pop((ranker, version))
        for ranker, pointer in pointers.items():
            seen = observed[ranker]
            for version in seen.available & pointer.wanted:
                self.records.available(ranker, version)
            for version in seen.failures.keys() & pointer.wanted - self.told(ranker):
                if (ranker, version) not in self._failed:
                    self._failed[ranker, version] = time.monotonic()
                    self.records.failed(ranker, version)
        self._blame(lost, pointers)
        self._loading = {(r, version) for r, seen in observed.items() for version in seen.loading}

    def forget(self, pointers: Mapping[str, Pointer]) -> None:
        """What is not wanted any more is another try when it is wanted again."""
        for ranker, pointer in pointers.items():
            self.records.forget(ranker, pointer.wanted)
            for copy in [c for c in self._told if c[0] == ranker and c[1] not in pointer.wanted]:
                del self._told[copy]
            for copy in [c for c in self._failed if c[0] == ranker and c[1] not in pointer.wanted]:
                del self._failed[copy]

    def _is_fresh(self, since: float) -> bool:
        return time.monotonic() - since < _UNSEEN_SECONDS

    def _blame(self, lost: list[Copy], pointers: Mapping[str, Pointer]) -> None:
        alone = len(lost) == 1 and self._loading <= set(lost)
        for copy in lost:
            self._told.pop(copy)
            pointer = pointers.get(copy[0])
            self.records.died(*copy, alone=alone, sequence=pointer.sequence if pointer else 0)
            logger(ranker=copy[0], version=copy[1]).error(
                "the model server ended while it loaded this version", alone=alone
            )

    def choose(
        self,
        pointers: Mapping[str, Pointer],
        observed: Mapping[str, Observed],
        local: Mapping[str, frozenset[int]],
    ) -> list[Copy]:
        """What the server is to load next."""
        under_way = set(self._told)
        under_way.update((ranker, version) for ranker, seen in observed.items() for version in seen.loading)
        candidates = [
            (pointer, version)
            for ranker, pointer in pointers.items()
            for version in missing(pointer, observed[ranker], local[ranker])
            if self._may_load(pointer, version)
        ]
        suspects = {(p.ranker, v) for p, v in candidates if self.records.of(p.ranker, v).suspect}
        suspects.update(copy for copy in under_way if self.records.of(*copy).suspect)
        return choose_loads(candidates, under_way, suspects)

    def _may_load(self, pointer: Pointer, version: int) -> bool:
        """What failed is tried again after a minute. What ended the server is not, unless customers have nothing else."""
        failed = self._failed.get((pointer.ranker, version), float("-inf"))
        if time.monotonic() - failed < _RETRY_LOAD_SECONDS:
            return False
        record = self.records.of(pointer.ranker, version)
        return not record.deaths or (version == pointer.stable and record.pause_is_over())

    def failing(self, ranker: str) -> frozenset[int]:
        """Versions that do not load here."""
        failed = {version for name, version in self._failed if name == ranker}
        died = {
            version for (name, version), record in self.records.items() if name == ranker and record.deaths
        }
        return frozenset(failed | died)

    def failures(self, ranker: str, observed: Observed) -> dict[int, str]:
        """Version → why it does not serve here. A server lists an old failure until it begins the new load."""
        told = self.told(ranker)
        found = {
            version: f"version {version} was not loaded: {message}"
            for version, message in observed.failures.items()
            if version not in told and version not in observed.available
        }
        for (name, version), record in self.records.items():
            if name == ranker and record.deaths:
                found[version] = (
                    f"version {version} was not loaded: the model server ended while it loaded it"
                )
        return found
