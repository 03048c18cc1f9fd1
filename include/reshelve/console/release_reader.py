"""What a person sees of the releases: read by number and from memory, so that it is as quick with 1,000 versions.

A log entry is never changed, a manifest hardly ever (keys are replaced, housekeeping deletes): entries are kept for
good, manifests are asked for again only after a minute, and then with their entity tag.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import ValidationError

from reshelve.deployments.deployment_log import Entry, Pointer, deployed_rankers, read_entry, read_pointer
from reshelve.deployments.freeze import read_hold
from reshelve.errors import ConfigurationError, DataError
from reshelve.evaluation.shelves import Shelf, read_shelves
from reshelve.logs import logger
from reshelve.monitoring.observations import Observation, recent
from reshelve.names import is_day, version_of
from reshelve.protocol.reports import LIVE_SECONDS, Report, read_reports
from reshelve.reporting.address import FILE as REPORT_FILE
from reshelve.reporting.address import STAGE as REPORT_STAGE
from reshelve.rollout.left_versions import left_because, words
from reshelve.store.layout import models_of, run_folder, runs_of
from reshelve.store.manifest import MANIFEST, GateVerdict, Manifest, version_prefix
from reshelve.store.objects import ObjectStore
from reshelve.store.signatures import Trust, trust

VERSIONS_A_PAGE = 12
ENTRIES_A_PAGE = 20

_MOST_ENTRIES, _MOST_MANIFESTS = 5000, 2000
_MOST_LOOKS = 100
_ASK_AGAIN_SECONDS = 60.0
_LOOK_SECONDS = 30.0  # the watch looks every ten minutes
_AT_ONCE = 8
_NIGHTS_BACK = 3

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class VersionRow:
    """One published version; `problem` says why its manifest cannot be believed."""

    version: int
    manifest: Manifest | None
    role: str = ""
    problem: str = ""
    reported: bool = False  # its night's report is there


@dataclass(frozen=True)
class AgentRow:
    """One agent's newest report, and whether it lives and has seen the newest move."""

    report: Report
    age: float
    live: bool
    up_to_date: bool


@dataclass(frozen=True)
class LogPage:
    """Entries newest first; `older` and `newer` are the numbers to ask for next, None at either end."""

    entries: tuple[Entry, ...]
    newest: int
    older: int | None
    newer: int | None


@dataclass(frozen=True)
class VersionPage:
    """Published versions, newest first. `total` counts numbers ever taken, `hidden` those of this page without a manifest."""

    rows: tuple[VersionRow, ...]
    total: int
    hidden: int
    page: int
    pages: int


@dataclass(frozen=True)
class Judged:
    """The newest night that was judged, published or not."""

    partition: str
    verdict: GateVerdict
    age: float


@dataclass(frozen=True)
class Deployment:
    """One ranker: what should serve, the versions it names, what the agents say, and since when stable serves."""

    ranker: str
    pointer: Pointer | None
    wanted: tuple[VersionRow, ...]
    agents: tuple[AgentRow, ...]
    since: datetime | None


@dataclass(frozen=True)
class _Kept:
    """A manifest's bytes parsed, their entity tag, and when they were last asked for."""

    etag: str | None
    manifest: Manifest | None
    problem: str
    at: float


class _Newest(Generic[T]):
    """A dictionary of the newest `most` things. Threads may share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            return self._found.get(key)

    def keep(self, key: Hashable, value: T) -> None:
        with self._lock:
            self._found[key] = value
            self._found.move_to_end(key)
            while len(self._found) > self._most:
                self._found.popitem(last=False)


class ReleaseReader:
    """The reader of one bucket; one per process. Every method raises TryAgainError when the store is away."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="board")
        self._entries: _Newest[Entry] = _Newest(_MOST_ENTRIES)
        self._manifests: _Newest[_Kept] = _Newest(_MOST_MANIFESTS)
        self._looks: _Newest[tuple[float, Sequence[Observation]]] = _Newest(_MOST_LOOKS)
        self._reports: _Newest[tuple[float, bool]] = _Newest(_MOST_MANIFESTS)

    def rankers(self) -> list[str]:
        """Rankers that were ever released, sorted."""
        return deployed_rankers(self.store)

    def deployment(self, ranker: str) -> Deployment:
        """What should serve and what does."""
        pointer = read_pointer(self.store, ranker)
        if pointer is None:
            return Deployment(ranker, None, (), (), None)
        wanted = [v for v in (pointer.stable, pointer.canary, pointer.previous) if v is not None]
        rows = self._rows(ranker, wanted, pointer)
        agents = tuple(_agent(report, pointer) for report in read_reports(self.store, ranker))
        return Deployment(ranker, pointer, tuple(rows), agents, self._since(pointer))

    def versions(self, ranker: str, pointer: Pointer | None, page: int = 1) -> VersionPage:
        """One page of versions, newest first. A number without a manifest (removed, or not finished) is counted only."""
        names = self.store.folders(models_of(ranker))
        numbers = sorted((n for n in map(version_of, names) if n is not None), reverse=True)
        pages = max(1, -(-len(numbers) // VERSIONS_A_PAGE))
        page = min(max(page, 1), pages)
        asked = numbers[(page - 1) * VERSIONS_A_PAGE : page * VERSIONS_A_PAGE]
        found = [row for row in self._rows(ranker, asked, pointer) if row.manifest or row.problem]
        rows = self._all(lambda row: replace(row, reported=self._is_reported(ranker, row)), found)
        return VersionPage(tuple(rows), len(numbers), len(asked) - len(rows), page, pages)

    def newest(self, ranker: str, count: int) -> list[Manifest]:
        """The newest published versions whose manifests can be believed, oldest first."""
        names = self.store.folders(models_of(ranker))
        numbers = sorted(n for n in map(version_of, names) if n is not None)[-count:]
        return [row.manifest for row in self._rows(ranker, numbers, None) if row.manifest is not None]

    def shelves(self, manifest: Manifest) -> Sequence[Shelf]:
        """What a version and the champion of its night answered to a few questions; empty where no gate has kept it."""
        return read_shelves(self.store, manifest.lineage.run)

    def left(self, pointer: Pointer) -> dict[int, str]:
        """Version → the warning, of those that a rollback may go to and that a rollback has left."""
        found = left_because(pointer, lambda number: self._entry(pointer.ranker, number))
        return {version: words(version, entry) for version, entry in found.items()}

    def log(self, pointer: Pointer, newest: int | None = None) -> LogPage:
        """The moves from number `newest` (default: the last one) downwards."""
        last = pointer.sequence
        first = min(newest or last, last)
        numbers = range(first, max(0, first - ENTRIES_A_PAGE), -1)
        entries = self._all(lambda number: self._entry(pointer.ranker, number), numbers)
        older = first - ENTRIES_A_PAGE
        return LogPage(
            tuple(entry for entry in entries if entry is not None),
            last,
            older if older > 0 else None,
            min(first + ENTRIES_A_PAGE, last) if first < last else None,
        )

    def last_verdict(self, ranker: str) -> Judged | None:
        """What the gate said last, also of a night that was rejected and so has no version."""
        nights = [night for night in self.store.folders(runs_of(ranker)) if is_day(night)]
        for partition in reversed(nights[-_NIGHTS_BACK:]):
            prefix = f"{runs_of(ranker)}{partition}/"
            keys = [f"{prefix}{run}/gate/result.json" for run in self.store.folders(prefix)]
            there = [result for result in self._all(self.store.get, keys) if result is not None]
            if there:
                newest = min(there, key=lambda result: result.age)
                try:
                    return Judged(partition, GateVerdict.model_validate_json(newest.body), newest.age)
                except ValidationError as error:
                    said = str(error.errors()[0]["msg"])
                    logger(ranker=ranker).warning("a verdict is damaged", partition=partition, problem=said)
        return None

    def looks(self, ranker: str, count: int) -> Sequence[Observation]:
        """What the watch found at its newest looks, oldest first; up to half a minute old."""
        kept, now = self._looks.get((ranker, count)), time.monotonic()
        if kept is None or now - kept[0] > _LOOK_SECONDS:
            kept = (now, recent(self.store, ranker, count))
            self._looks.keep((ranker, count), kept)
        return kept[1]

    def held(self, ranker: str) -> str:
        """Why releases wait, since when and by whose word; empty where they may go on."""
        try:
            found = read_hold(self.store, ranker)
        except DataError as error:
            return error.headline
        return "" if found is None else f"{found.reason} ({found.by}, {found.at:%Y-%m-%d %H:%M} UTC)"

    def version(self, ranker: str, version: int) -> VersionRow:
        """One version, published or not."""
        return self._rows(ranker, [version], None)[0]

    def _rows(self, ranker: str, versions: Iterable[int], pointer: Pointer | None) -> list[VersionRow]:
        trusted = _trust()

        def row(version: int) -> VersionRow:
            kept = self._manifest(ranker, version, trusted)
            return VersionRow(version, kept.manifest, _role(version, pointer), kept.problem)

        return self._all(row, versions)

    def _manifest(self, ranker: str, version: int, trusted: Trust | ConfigurationError) -> _Kept:
        """What is known of a version's manifest, asked for again where that is old."""
        key = (ranker, version)
        kept, now = self._manifests.get(key), time.monotonic()
        if kept is not None and now - kept.at < _ASK_AGAIN_SECONDS:
            return kept
        known = kept.etag if kept is not None and kept.manifest is not None else None
        found, changed = self.store.get_if_changed(f"{version_prefix(ranker, version)}/{MANIFEST}", known)
        if kept is not None and not changed:
            kept = replace(kept, at=now)
        elif found is None:
            kept = _Kept(None, None, "", now)
        else:
            kept = _Kept(found.etag, *_parsed(ranker, version, found.body, trusted), now)
        self._manifests.keep(key, kept)
        return kept

    def _is_reported(self, ranker: str, row: VersionRow) -> bool:
        """Whether a version's report is there. One that is stays; one that is not may still be made."""
        if row.manifest is None:
            return False
        key = f"{run_folder(row.manifest.lineage.run)}{REPORT_STAGE}/{REPORT_FILE}"
        kept, now = self._reports.get(key), time.monotonic()
        if kept is None or (not kept[1] and now - kept[0] > _LOOK_SECONDS):
            kept = (now, self.store.exists(key))
            self._reports.keep(key, kept)
        return kept[1]

    def _entry(self, ranker: str, sequence: int) -> Entry | None:
        entry = self._entries.get((ranker, sequence))
        if entry is None:
            try:
                entry = read_entry(self.store, ranker, sequence)
            except (
                DataError
            ) as error:  # `reshelve log` shows what is wrong with it; the others are shown here
                logger(ranker=ranker).warning("an entry of the log is left out", problem=str(error))
            if entry is not None:
                self._entries.keep((ranker, sequence), entry)
        return entry

    def _since(self, pointer: Pointer) -> datetime | None:
        """Since when stable is stable; None where that is further back than the newest page of the log."""
        since = None
        for entry in self.log(pointer).entries:
            if entry.pointer.stable != pointer.stable:
                return since
            since = entry.pointer.moved_at
        return since if pointer.sequence <= ENTRIES_A_PAGE else None

    def _all(self, work: Callable[[T], R], over: Iterable[T]) -> list[R]:
        """`work` of each, some at a time, in order; the first error is raised."""
        return list(self._pool.map(work, over))


def _role(version: int, pointer: Pointer | None) -> str:
    if pointer is None:
        return ""
    roles = {pointer.stable: "stable", pointer.canary: "canary", pointer.previous: "previous"}
    return roles.get(version, "")


def _agent(report: Report, pointer: Pointer) -> AgentRow:
    age = report.age()
    return AgentRow(
        report, age, age < LIVE_SECONDS, report.sequence >= pointer.sequence and report.error is None
    )


def _trust() -> Trust | ConfigurationError:
    """Without keys nothing can be believed, which is shown beside each version and is no reason to show nothing."""
    try:
        return trust()
    except ConfigurationError as error:
        return error


def _parsed(
    ranker: str, version: int, body: bytes, trusted: Trust | ConfigurationError
) -> tuple[Manifest | None, str]:
    if isinstance(trusted, ConfigurationError):
        return None, trusted.headline
    try:
        manifest = Manifest.parse(body, f"{ranker} version {version}", trusted)
    except DataError as error:
        return None, str(error)
    if (manifest.ranker, manifest.version) != (ranker, version):
        return None, f"its manifest names {manifest.ranker} {manifest.version}"
    return manifest, ""
