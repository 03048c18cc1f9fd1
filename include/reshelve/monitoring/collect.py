"""One look at everything that is known of a ranker: reads the store and the model server's page, changes nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer, entry_if_valid, log_problem, read_pointer, step_began
from reshelve.deployments.freeze import Hold, read_hold
from reshelve.deployments.release_table import ReleaseState
from reshelve.errors import DataError, TryAgainError
from reshelve.logs import logger
from reshelve.monitoring.observations import AgentSeen, VersionRole
from reshelve.monitoring.server_page import Page, read_page
from reshelve.monitoring.watch_state import Stable
from reshelve.protocol.reports import Report, read_reports
from reshelve.protocol.traffic import Counts, TrafficReport, merged, read_traffic_reports
from reshelve.store.layout import runs_of
from reshelve.store.manifest import partition_of
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import list_versions
from reshelve.validation.verdicts import PartitionVerdict, newest_verdict, read_verdict

_MOVES_READ = 200
_FORGOTTEN = timedelta(days=1)  # an agent that has been silent for so long was taken away


@dataclass(frozen=True)
class Collected:
    """What there is to judge."""

    ranker: Ranker
    now: datetime
    pointer: Pointer
    reports: tuple[TrafficReport, ...] = ()
    step: dict[int, Counts] = field(default_factory=dict)  # since the canary's step began
    step_began: int = 0  # the move that began it
    agents: tuple[AgentSeen, ...] = ()
    servers: tuple[str, ...] = ()  # gRPC addresses of the model servers whose agents live
    verdict: PartitionVerdict | None = None  # of the newest partition that has one
    yesterday: PartitionVerdict | None = None
    night_done: bool = False  # yesterday's partition has a version, or its night came to an end without one
    newest: date | None = None  # the newest partition that a version was trained on
    page: Page = field(default_factory=dict)
    hold: Hold | None = None
    log_problem: str = ""  # what of the deployment log, or of the pointer object, does not verify
    moves: int = 0  # of the log, read after the agents' reports

    def role(self, version: int) -> VersionRole:
        """What a version is now."""
        pointer = self.pointer
        roles = {
            pointer.previous: VersionRole.PREVIOUS,
            pointer.canary: VersionRole.CANARY,
            pointer.stable: VersionRole.STABLE,
        }
        return roles.get(version, VersionRole.OTHER)

    @property
    def server_is_well(self) -> bool:
        """Whether an agent that lives says that its server answers: then what fails is a version's fault."""
        return any(agent.live and agent.error is None for agent in self.agents)


def collect(store: ObjectStore, ranker: Ranker, now: datetime) -> Collected:
    """Look once. Raises TryAgainError where the store is away."""
    name, source = ranker.name, ranker.data.source
    pointer = read_pointer(store, name) or Pointer(ranker=name)
    reports = tuple(read_traffic_reports(store, name))
    yesterday = (now - timedelta(days=1)).date()
    versions = list_versions(store, name)
    began = step_began(store, pointer) if pointer.state is ReleaseState.CANARY else 0
    agents = read_reports(store, name)
    silent = ranker.watch.agent_minutes * 60
    problem, newest = log_problem(store, name), read_pointer(store, name)
    return Collected(
        ranker=ranker,
        now=now,
        pointer=pointer,
        reports=reports,
        step=merged(reports, began) if pointer.state is ReleaseState.CANARY else {},
        step_began=began,
        agents=_agents(agents, silent),
        servers=tuple(sorted({report.server for report in agents if report.age() < silent})),
        verdict=newest_verdict(store, source),
        yesterday=read_verdict(store, source, yesterday),
        night_done=_night_done(store, name, versions, yesterday),
        newest=max(_partitions(versions), default=None),
        page=read_page(name),
        hold=_hold(store, name),
        log_problem=problem,
        moves=newest.sequence if newest else 0,
    )


def _agents(reports: list[Report], silent_seconds: float) -> tuple[AgentSeen, ...]:
    """Agents that reported within a day: one that was taken away is not missed for ever."""
    return tuple(
        AgentSeen(
            agent=report.agent,
            live=report.age() < silent_seconds,
            age_seconds=round(report.age(), 1),
            stable=report.serving.stable,
            error=report.error,
            sequence=report.sequence,
            memory_bytes=report.host.server_memory_bytes,
            memory_share=report.host.memory_share,
            disk_share=report.host.disk_share,
        )
        for report in sorted(reports, key=lambda one: one.agent)
        if report.age() < _FORGOTTEN.total_seconds()
    )


def _night_done(store: ObjectStore, ranker: str, versions: list[int], day: date) -> bool:
    """A rejected challenger publishes nothing; its night is over all the same."""
    if day in _partitions(versions):
        return True
    runs = f"{runs_of(ranker)}{day.isoformat()}/"
    return any(store.exists(f"{runs}{digest}/publish/result.json") for digest in store.folders(runs))


def _partitions(versions: list[int]) -> set[date]:
    """The days of versions; an integer that is none of a day was not published by us."""
    found = set()
    for version in versions:
        with suppress(DataError):
            found.add(partition_of(version))
    return found


def _hold(store: ObjectStore, ranker: str) -> Hold | None:
    try:
        return read_hold(store, ranker)
    except DataError as error:
        logger(ranker=ranker).error(
            "the release freeze's record is damaged: releases wait for a person", problem=error.headline
        )
        return None


def stable_since(store: ObjectStore, pointer: Pointer, known: Stable | None) -> Stable | None:
    """Since when the stable version is stable, and what made it so: from the log, backwards, only where it changed."""
    if pointer.stable is None:
        return None
    if known is not None and known.version == pointer.stable and known.sequence <= pointer.sequence:
        newer = range(known.sequence + 1, pointer.sequence + 1)
        if len(newer) <= _MOVES_READ and all(_stable_at(store, pointer, n) == pointer.stable for n in newer):
            return known.model_copy(update={"sequence": pointer.sequence})
    for sequence in range(pointer.sequence, max(0, pointer.sequence - _MOVES_READ), -1):
        entry = entry_if_valid(store, pointer.ranker, sequence)
        before = _stable_at(store, pointer, sequence - 1) if sequence > 1 else None
        if entry is None:
            break  # tampered with, which is told elsewhere
        if entry.pointer.stable == pointer.stable and before != pointer.stable:
            if entry.pointer.moved_at is None:
                break
            return Stable(
                version=pointer.stable,
                since=entry.pointer.moved_at,
                came_by=entry.action,
                sequence=pointer.sequence,
            )
    if pointer.moved_at is None:
        raise TryAgainError(f"{pointer.ranker}: the pointer does not say when it was moved")
    return Stable(version=pointer.stable, since=pointer.moved_at, came_by="", sequence=pointer.sequence)


def _stable_at(store: ObjectStore, pointer: Pointer, sequence: int) -> int | None:
    entry = entry_if_valid(store, pointer.ranker, sequence)
    return None if entry is None else entry.pointer.stable
