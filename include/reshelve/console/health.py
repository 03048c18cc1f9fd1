"""Whether what should serve one ranker does, by its agents' reports; and what a person does about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from reshelve.deployments.deployment_log import Pointer
from reshelve.protocol.reports import LIVE_SECONDS, Report

# A host that was replaced is no host that ails. Where an agent lives, a silent one was; where none does, who knows.
_REPLACED_SECONDS = 3600.0
_GONE_SECONDS = 86_400.0
_FOLLOW_SECONDS = 60.0  # agents need a moment after a move of the pointer


class Level(StrEnum):
    """How bad it is."""

    WELL = "well"
    HINDERED = "hindered"  # some agents' servers answer
    OUTAGE = "outage"  # none does, as far as is known


@dataclass(frozen=True)
class Health:
    """What is wrong, agent by agent, and what to do; `troubles` is empty where all is well."""

    level: Level
    headline: str = ""
    troubles: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


def health(pointer: Pointer | None, reports: Sequence[Report]) -> Health:
    """Judge the reports of a ranker's agents. Where nothing is stable yet, nothing can be away."""
    if pointer is None or pointer.stable is None:
        return Health(Level.WELL)
    recent = counted(reports)
    if not recent:
        said = f"No agent has reported on {pointer.ranker}: it is unknown whether it is served"
        return Health(Level.OUTAGE, said, (), (_START_AGENT, _LOCAL))
    troubles = {report.agent: _trouble(report, pointer) for report in recent}
    wrong = tuple(said for said in troubles.values() if said)
    if not wrong:
        return Health(Level.WELL)
    silent = any(report.age() >= LIVE_SECONDS for report in recent)
    away = any(report.age() < LIVE_SECONDS and report.error for report in recent)
    remedies = (*((_RESTART_SERVER,) if away else ()), *((_START_AGENT,) if silent else ()), _LOCAL)
    if not any(_answers(report) for report in recent):
        said = f"Outage: no model server is known to answer for {pointer.ranker}"
        return Health(Level.OUTAGE, said, wrong, (*remedies, _NO_ROLLBACK))
    said = f"{len(wrong)} of {len(recent)} agents of {pointer.ranker} are not well"
    return Health(Level.HINDERED, said, wrong, remedies)


def counted(reports: Sequence[Report]) -> list[Report]:
    """Without the agents that were taken away: silent for an hour while another lives, or for a day. Never empty by that."""
    lives = any(report.age() < LIVE_SECONDS for report in reports)
    longest = _REPLACED_SECONDS if lives else _GONE_SECONDS
    return [report for report in reports if report.age() < longest] or list(reports)


_RESTART_SERVER = (
    "Check the model server's host and log, and restart the server if it has stopped. Its agent "
    "then restores what it served; nothing has to be released."
)
_START_AGENT = "Restart the silent agent or its host. Its server may still answer: try `reshelve predict`."
_LOCAL = (
    "On a local platform, processes that die are restarted within seconds. `reshelve platform "
    "status` shows any that are still dead and their logs; `reshelve platform up` starts them."
)
_NO_ROLLBACK = "A rollback does not help: no other version would answer either."


def _answers(report: Report) -> bool:
    """Whether the agent lives and its server answers with some version as the stable one."""
    return report.age() < LIVE_SECONDS and report.serving.stable is not None


def _trouble(report: Report, pointer: Pointer) -> str:
    """What is wrong at one agent; empty where nothing is, or where it may still be following a move."""
    where = f"agent {report.agent} ({report.server})"
    if report.age() >= LIVE_SECONDS:
        return f"{where} has been silent for {report.age():,.0f} s"
    if report.error or report.failures:
        failures = "; ".join(f"{version}: {why}" for version, why in report.failures.items())
        return f"{where}: {report.error or failures}"
    moved = pointer.moved_at
    settled = moved is None or (datetime.now(UTC) - moved).total_seconds() > _FOLLOW_SECONDS
    if settled and report.serving.stable != pointer.stable:
        return f"{where} answers with {report.serving.stable or 'nothing'} as stable, not {pointer.stable}"
    return ""
