"""Waiting for the serving agents: a release believes reports, never hope."""

from __future__ import annotations

import time
from collections.abc import Callable

from reshelve.deployments.deployment_log import Pointer, moved_since, read_pointer
from reshelve.errors import DataError, TryAgainError
from reshelve.logs import logger
from reshelve.protocol.reports import LIVE_SECONDS, Report, live_reports
from reshelve.store.objects import ObjectStore

FIRST_REPORT_SECONDS = 30.0  # agents report on rankers that have a pointer; the very first offer makes one
_LOOK_SECONDS = 0.5
_SAY_SECONDS = 10.0
_LABEL_SECONDS = 60.0


def require_live(store: ObjectStore, ranker: str, seconds: float = 0) -> list[Report]:
    """Reports of the agents that live, waiting up to `seconds` for the first. Raises TryAgainError where there is none."""
    deadline = time.monotonic() + seconds
    while not (found := live_reports(store, ranker)):
        if time.monotonic() >= deadline:
            raise TryAgainError(
                f"{ranker}: no serving agent has reported in the last {LIVE_SECONDS:g} s",
                "is `reshelve agent` running next to the model server?",
            )
        time.sleep(_LOOK_SECONDS)
    return found


def wait_for_agents(
    store: ObjectStore,
    ranker: str,
    pointer: Pointer,
    version: int,
    done: Callable[[Report], bool],
    seconds: float,
    what: str,
) -> list[Report]:
    """Wait until every live agent has seen `pointer` and is `done`; their reports.

    An agent that reports that `version` can never serve there ends the wait: look at its `failures`. Raises MovedError as
    soon as somebody has moved the pointer away from `version`, and TryAgainError naming the agents that are missing when
    the time is over.
    """
    deadline = time.monotonic() + seconds
    say_at = time.monotonic() + _SAY_SECONDS
    while True:
        reports = live_reports(store, ranker)
        seen = [report for report in reports if report.sequence >= pointer.sequence]
        if any(version in report.failures for report in seen):
            return reports
        waiting = [report for report in reports if report not in seen or not done(report)]
        if reports and not waiting:
            return reports
        now = read_pointer(store, ranker)
        if now is not None and version not in (now.canary, now.stable):
            raise moved_since(store, now, pointer.sequence)
        if time.monotonic() > deadline:
            raise TryAgainError(f"{ranker}: {what} took longer than {seconds:g} s", _missing(waiting))
        if time.monotonic() > say_at:
            say_at += _SAY_SECONDS
            logger(ranker=ranker).info(f"waiting: {what}", agents=_missing(waiting))
        time.sleep(_LOOK_SECONDS)


def wait_for_label(store: ObjectStore, name: str, pointer: Pointer, version: int) -> list[Report]:
    """Wait until every live agent serves the version under the label stable. Raises DataError where one never can, or is not to any more."""
    reports = wait_for_agents(
        store,
        name,
        pointer,
        version,
        lambda report: report.serving.stable == version,
        _LABEL_SECONDS,
        f"the pointer is moved, but serving version {version} as stable",
    )
    failures = [f"agent {r.agent}: {r.failures[version]}" for r in reports if version in r.failures]
    if failures:
        raise DataError(f"{name}: the pointer is at {version}, but it cannot be served", "; ".join(failures))
    return reports


def _missing(waiting: list[Report]) -> str:
    if not waiting:
        return f"no serving agent has reported in the last {LIVE_SECONDS:g} s"
    return "; ".join(f"agent {report.agent} ({report.error or 'no error reported'})" for report in waiting)


def summary(reports: list[Report]) -> list[dict[str, object]]:
    """What a result says of the agents."""
    return [
        {
            "agent": report.agent,
            "server": report.server,
            "stable": report.serving.stable,
            "error": report.error,
        }
        for report in sorted(reports, key=lambda r: r.agent)
    ]
