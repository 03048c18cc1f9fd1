"""Which agents count when a ranker's health is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reshelve.console.health import Level, health
from reshelve.deployments.deployment_log import Pointer
from reshelve.protocol.reports import Report, Serving

POINTER = Pointer(ranker="recommend", sequence=1, stable=20110830001)


def report(agent: str, seconds: float) -> Report:
    serving = Serving(stable=POINTER.stable)
    at = datetime.now(UTC) - timedelta(seconds=seconds)
    return Report(agent=agent, server=f"{agent}:8500", at=at, sequence=1, serving=serving)


@pytest.mark.parametrize(
    ("silent_seconds", "level"),
    [
        (10, Level.WELL),
        (120, Level.HINDERED),
        (3500, Level.HINDERED),
        (3700, Level.WELL),
        (90_000, Level.WELL),
    ],
)
def test_an_agent_that_was_replaced_counts_for_an_hour(silent_seconds: float, level: Level) -> None:
    assert health(POINTER, [report("new", 1), report("old", silent_seconds)]).level is level


@pytest.mark.parametrize("silent_seconds", [120, 3700, 90_000])
def test_the_only_agent_is_missed_for_ever(silent_seconds: float) -> None:
    found = health(POINTER, [report("only", silent_seconds)])
    assert found.level is Level.OUTAGE and "agent only" in found.troubles[0]


def test_where_none_lives_each_is_named() -> None:
    assert len(health(POINTER, [report("a", 120), report("b", 3700)]).troubles) == 2
